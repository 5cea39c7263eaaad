"""The servers of the recording, and the calls for each of them."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attendant_manifest import format_manifest, parse_stored_manifest

from tests.recorded import bad_calls
from tests.recorded.call import Call, embed, embed_tokens, fill_mask, get_model, score, translate
from tests.recorded.embedding_calls import (
    bulk_embed_calls,
    classify_calls,
    embed_calls,
    embed_sparse_calls,
    embed_tokens_calls,
    fill_mask_calls,
    rerank_calls,
    similarity_calls,
)
from tests.recorded.language_model_calls import (
    bad_language_model_calls,
    generate_calls,
    score_text_calls,
    stop_calls,
    stream_generate_calls,
)
from tests.recorded.model_calls import (
    attention_calls,
    description_calls,
    detection_calls,
    health_calls,
    metadata_calls,
    reflection_calls,
    tokenize_calls,
)
from tests.recorded.texts import (
    ENGLISH,
    GERMAN,
    GERMAN_PAIRS,
    ODD,
    TINY_ENGLISH,
    TINY_PAIRS,
)
from tests.recorded.translation_calls import (
    FEW_SEARCHES,
    SEARCHES,
    bulk_translate_calls,
    control_calls,
    few_stream_calls,
    language_calls,
    mixed_calls,
    odd_calls,
    odd_score_calls,
    prefix_calls,
    score_calls,
    search_calls,
    splitting_calls,
    stream_calls,
    truncated_calls,
)

ROOT = Path(__file__).parents[2]
BUILT_IN_BUNDLES = ROOT / "bundles"
TINY_BUNDLES = ROOT / "tests/data/manifest-1"
CLASSIFIER_BUNDLES = ROOT / "tests/recorded/classifiers"
LANGUAGE_MODEL_BUNDLES = ROOT / "tests/recorded/language_models"
SPLADE_BUNDLES = ROOT / "tests/recorded/splade"
FP32_BUNDLES = ROOT / "tests/recorded/bundles"
"""Tiny bundles in fp32 and with shortlists, which the other bundles lack."""
BOUNDS = {"int8": 0.1, "fp16": 0.01, "fp32": 1e-4}
"""Allowed differences of log-probabilities between processors. Those of fp16 and fp32 are stated in
the manifests. In int8, a last bit that differs may change the rounding of an input, and of the
inputs after it: with AVX2 instead of AVX-512, a text of 128 tokens differed by 0.052."""
TINY_MASK, MASK = "The old [MASK] sees the king.", "The capital of Germany is [MASK]."


@dataclass(frozen=True, slots=True)
class RecordedServer:
    """A server and its calls, made one at a time in this order."""

    name: str
    """Name of the server and of the file with its answers."""
    write_bundles: Callable[[Path], Path]
    """Returns a folder of bundles. May create it in the given folder."""
    calls: tuple[Call, ...]
    flags: tuple[str, ...] = ()
    precision: str = "int8"

    @property
    def bound(self) -> float:
        """Allowed difference of floats on another type of processor."""
        return BOUNDS[self.precision]


def _tiny_calls() -> Iterator[Call]:
    translation, embedding = "tiny-en-de", "tiny-bert"
    yield from description_calls((translation, embedding, f"{translation}/1"))
    yield from health_calls()
    yield from reflection_calls()
    yield from metadata_calls(embedding)
    yield from detection_calls()
    yield from search_calls(translation, TINY_ENGLISH, list(SEARCHES))
    yield from mixed_calls(translation, TINY_ENGLISH)
    yield from splitting_calls(translation, TINY_ENGLISH)
    yield from truncated_calls(translation)
    yield from odd_calls(translation, ODD)
    yield from stream_calls(translation, TINY_ENGLISH)
    yield from bulk_translate_calls(translation, TINY_ENGLISH[0])
    yield from prefix_calls(translation, TINY_ENGLISH, "Der alte")
    yield from score_calls(translation, TINY_PAIRS)
    yield from odd_score_calls(translation, TINY_ENGLISH[0])
    yield from embed_calls(embedding, TINY_ENGLISH)
    yield from bulk_embed_calls(embedding, TINY_ENGLISH[0])
    yield from embed_tokens_calls(embedding, TINY_ENGLISH, num_layers=2)
    yield from fill_mask_calls(embedding, TINY_MASK)
    yield from similarity_calls(embedding, TINY_ENGLISH)
    yield from tokenize_calls(translation, ("unspecified", "source", "target"))
    yield from tokenize_calls(embedding, ("unspecified", "source"))


def _bad_calls() -> Iterator[Call]:
    yield from bad_calls.bad_counts()
    yield from bad_calls.bad_options()
    yield from bad_calls.several_faults()
    yield from bad_calls.bad_models("tiny-en-de", "tiny-bert")
    yield from bad_calls.unnamed_models()
    yield from bad_calls.undecodable_requests()


def _built_in_calls() -> Iterator[Call]:
    yield from description_calls(("bert-en-de", "de-en", "en-de", "en-fr"))
    yield from bad_calls.unnamed_models()
    yield from search_calls("en-de", ENGLISH, list(SEARCHES))
    yield from mixed_calls("en-de", ENGLISH)
    yield from splitting_calls("en-de", ENGLISH)
    yield from odd_calls("en-de", ODD)
    for name in ("address", "digits"):  # their ends come with many candidates
        yield translate(
            f"en-de {name}, beam 8", [ODD[name]], "en-de", beam_size=8, num_hypotheses=8
        )
    yield from stream_calls("en-de", ENGLISH)
    yield from prefix_calls("en-de", ENGLISH, "Der")
    yield from score_calls("en-de", GERMAN_PAIRS)
    yield from odd_score_calls("en-de", ENGLISH[0])
    yield from language_calls(ENGLISH[0])
    yield from search_calls("de-en", GERMAN, ("defaults", "beam 4"))
    yield from odd_calls(
        "de-en", {name: ODD[name] for name in ("decomposed accents", "soft hyphens")}
    )
    yield from search_calls("en-fr", ENGLISH, ("defaults", "beam 4"))
    yield from embed_calls("bert-en-de", [*ENGLISH, *GERMAN])
    yield from embed_tokens_calls("bert-en-de", ENGLISH, num_layers=6)
    yield from fill_mask_calls("bert-en-de", MASK)
    yield from tokenize_calls("de-en", ("source", "target"))
    yield from tokenize_calls("bert-en-de", ("source",))
    yield from attention_calls("en-de", "bert-en-de")


def _few_translation_calls(model: str, texts: tuple[str, ...]) -> Iterator[Call]:
    """Calls for other precisions of a model whose options are all recorded elsewhere."""
    yield from search_calls(model, texts, FEW_SEARCHES)
    yield from mixed_calls(model, texts)
    yield from few_stream_calls(model, texts[1])
    yield score("several pairs", TINY_PAIRS, model)


def _few_embedding_calls(model: str, texts: tuple[str, ...]) -> Iterator[Call]:
    yield embed("several texts", [*texts, *ODD.values()], model)
    yield embed_tokens("two layers", texts[:1], model, layers=(0, -1))
    yield fill_mask("several masks", [TINY_MASK, "[MASK] [MASK]"], model, top_k=10)


def _calls_to_embedding_models() -> Iterator[Call]:
    yield from description_calls(("tiny-bert", "tiny-bert/1.9", "headless-bert"))
    yield from health_calls()
    yield from bad_calls.unnamed_models()
    yield get_model("a version that does not exist", "tiny-bert/1")
    yield translate("an embedding model", TINY_ENGLISH[:1], "tiny-bert")
    yield embed("the highest version", TINY_ENGLISH[:1], "tiny-bert")
    yield embed("an older version", TINY_ENGLISH[:1], "tiny-bert/1.9")
    yield embed("a model without a head", TINY_ENGLISH[:1], "headless-bert")
    yield fill_mask("a model without a head", [TINY_MASK], "headless-bert")
    yield fill_mask("bad count for a model without a head", [TINY_MASK], "headless-bert", top_k=0)
    yield fill_mask("more candidates than tokens", [TINY_MASK], "tiny-bert", top_k=200)


def _write_embedding_bundles(folder: Path) -> Path:
    """Three bundles made from one: two versions, and a model without its head."""
    _copy_bundle(TINY_BUNDLES / "tiny-bert/1", folder / "tiny-bert/1.9")
    _copy_bundle(TINY_BUNDLES / "tiny-bert/1", folder / "tiny-bert/1.10")
    headless = _copy_bundle(TINY_BUNDLES / "tiny-bert/1", folder / "headless-bert/1")
    manifest = json.loads((headless / "manifest.json").read_text(encoding="utf-8"))
    for precision in manifest["precisions"]:
        path = precision.pop("mlm_head")["path"]
        (headless / path).unlink()
        manifest["files"] = [file for file in manifest["files"] if file["path"] != path]
    _write_manifest(headless, manifest)
    return folder


def _calls_with_controls() -> Iterator[Call]:
    yield from description_calls(("tiny-en-de",))
    yield from control_calls("tiny-en-de", TINY_ENGLISH)


def _write_controlled_bundle(folder: Path) -> Path:
    """A bundle with two controls, whose tokens are words of the vocabulary."""
    bundle = _copy_bundle(TINY_BUNDLES / "tiny-en-de/1", folder / "tiny-en-de/1")
    manifest, _ = parse_stored_manifest((bundle / "manifest.json").read_text(encoding="utf-8"))
    for name, default, values in (
        ("tone", "plain", {"plain": ([], []), "warm": ([20], []), "cold": ([21, 22], [])}),
        ("opening", "", {"fixed": ([], [30])}),
    ):
        control = manifest.controls.add(name=name, default_value=default)
        for value, (prefix, forced) in values.items():
            control.values.add(name=value, source_prefix_ids=prefix, forced_target_ids=forced)
    manifest.controls[0].description = "The tone of translations."
    (bundle / "manifest.json").write_text(format_manifest(manifest), encoding="utf-8")
    return folder


def _copy_bundle(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    _write_manifest(target, {**manifest, "name": target.parent.name, "version": target.name})
    return target


def _write_manifest(bundle: Path, manifest: dict[str, object]) -> None:
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


SMALL_LIMITS = (
    *("--max-texts", "10", "--max-text-characters", "200", "--max-request-bytes", "1024"),
    *("--max-beam-size", "2", "--max-top-k", "3", "--max-response-bytes", "1024"),
)
SERVERS = (
    RecordedServer("tiny-int8", lambda _: TINY_BUNDLES, tuple(_tiny_calls())),
    RecordedServer("tiny-bad-requests", lambda _: TINY_BUNDLES, tuple(_bad_calls())),
    RecordedServer(
        "tiny-small-limits",
        lambda _: TINY_BUNDLES,
        tuple(bad_calls.calls_beyond_small_limits()),
        SMALL_LIMITS,
    ),
    RecordedServer(
        "tiny-embedding-models",
        _write_embedding_bundles,
        tuple(_calls_to_embedding_models()),
        ("--max-top-k", "200"),
    ),
    RecordedServer("tiny-controls", _write_controlled_bundle, tuple(_calls_with_controls())),
    RecordedServer(
        "tiny-classifier",
        lambda _: CLASSIFIER_BUNDLES,
        (
            *classify_calls("tiny-classifier", TINY_ENGLISH),
            *rerank_calls("tiny-classifier", TINY_ENGLISH),
            get_model("tiny-classifier", "tiny-classifier"),
            embed("several texts", TINY_ENGLISH, "tiny-classifier"),
        ),
        precision="fp32",
    ),
    RecordedServer(
        "tiny-splade",
        lambda _: SPLADE_BUNDLES,
        (
            *embed_sparse_calls("tiny-splade", TINY_ENGLISH),
            get_model("tiny-splade", "tiny-splade"),
            fill_mask("a model without this head", [TINY_MASK], "tiny-splade"),
        ),
        precision="fp32",
    ),
    RecordedServer(
        "tiny-language-model",
        lambda _: LANGUAGE_MODEL_BUNDLES,
        (
            *description_calls(("tiny-lm",)),
            *generate_calls("tiny-lm", TINY_ENGLISH),
            *stop_calls("tiny-lm", TINY_ENGLISH[0], ["never", "t", "a"]),
            *stream_generate_calls("tiny-lm", TINY_ENGLISH[0]),
            *score_text_calls("tiny-lm", TINY_ENGLISH),
            *tokenize_calls("tiny-lm", ("unspecified", "source", "target")),
            *bad_language_model_calls("tiny-lm"),
        ),
        precision="fp32",
    ),
    RecordedServer(
        "tiny-fp32",
        lambda _: FP32_BUNDLES,
        (
            *_few_translation_calls("tiny-en-de", TINY_ENGLISH),
            *_few_embedding_calls("tiny-bert", TINY_ENGLISH),
        ),
        ("--precision", "fp32"),
        "fp32",
    ),
    RecordedServer(
        "tiny-shortlists-fp32",
        lambda _: FP32_BUNDLES,
        tuple(_few_translation_calls("tiny-en-de", TINY_ENGLISH)),
        ("--precision", "fp32", "--shortlists", "auto", "--models", "tiny-en-de"),
        "fp32",
    ),
    RecordedServer(
        "tiny-shortlists-int8",
        lambda _: FP32_BUNDLES,
        tuple(_few_translation_calls("tiny-en-de", TINY_ENGLISH)),
        ("--shortlists", "auto", "--models", "tiny-en-de"),
    ),
    RecordedServer("built-in-int8", lambda _: BUILT_IN_BUNDLES, tuple(_built_in_calls())),
    RecordedServer(
        "built-in-fp16",
        lambda _: BUILT_IN_BUNDLES,
        (
            *_few_translation_calls("en-de", ENGLISH),
            *_few_embedding_calls("bert-en-de", ENGLISH),
        ),
        ("--precision", "fp16", "--models", "en-de,bert-en-de"),
        "fp16",
    ),
)
