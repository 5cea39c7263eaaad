"""Valid calls of EmbeddingService."""

from collections.abc import Iterator, Sequence
from typing import Any

from attendant.v1.embedding_pb2 import (
    CHUNKING_SENTENCES,
    CHUNKING_TOKENS,
    DATA_TYPE_BINARY,
    DATA_TYPE_FLOAT16,
    DATA_TYPE_INT8,
    DATA_TYPE_UINT8,
    LAYER_COMBINATION_CONCATENATION,
    LAYER_COMBINATION_MEAN,
    POOLING_CLS,
    POOLING_MAX,
    POOLING_MEAN,
    POOLING_UNSPECIFIED,
    VECTOR_UNIT_SPANS,
    VECTOR_UNIT_WORDS,
    MaskTexts,
    Span,
    TextCandidates,
    TextSpans,
)
from attendant.v1.text_pb2 import (
    OFFSET_UNIT_UTF8_BYTES,
    OFFSET_UNIT_UTF16_UNITS,
    TEXT_NORMALIZATION_NONE,
    TRUNCATION_LEFT,
    TRUNCATION_RIGHT,
)

from tests.recorded.call import (
    Call,
    bulk_embed,
    classify,
    embed,
    embed_sparse,
    embed_tokens,
    fill_mask,
    rerank,
    similarity,
)
from tests.recorded.texts import BLANK, LONG, ODD, UNCUT_WORD
from tests.recorded.translation_calls import TRUNCATIONS

POOLINGS = {
    "unspecified": POOLING_UNSPECIFIED,
    "mean": POOLING_MEAN,
    "cls": POOLING_CLS,
    "max": POOLING_MAX,
}
NORMALIZATIONS: dict[str, dict[str, bool]] = {
    "unset": {},
    "true": {"normalize": True},
    "false": {"normalize": False},
}
DATA_TYPES = {
    "float16": DATA_TYPE_FLOAT16,
    "int8": DATA_TYPE_INT8,
    "uint8": DATA_TYPE_UINT8,
    "bits": DATA_TYPE_BINARY,
}
CHUNKINGS: dict[str, dict[str, Any]] = {
    "sentences": {"chunking": CHUNKING_SENTENCES},
    "averaged sentences": {"chunking": CHUNKING_SENTENCES, "average_chunks": True},
    "chunks of 24 tokens": {"chunking": CHUNKING_TOKENS, "max_chunk_tokens": 24},
    "a limit without chunks": {"max_chunk_tokens": 24},
}
LAYER_COMBINATIONS = {
    "mean of layers": LAYER_COMBINATION_MEAN,
    "concatenation of layers": LAYER_COMBINATION_CONCATENATION,
}
LAYERS = {
    "none": (),
    "0": (0,),
    "1": (1,),
    "the last": (-1,),
    "the first by its negative number": None,
    "three in this order": (-1, 0, 1),
}


def embed_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Every pooling with every normalization, and valid and invalid texts in one call."""
    for pooling_name, pooling in POOLINGS.items():
        for name, normalize in NORMALIZATIONS.items():
            yield embed(
                f"{model} pooling {pooling_name}, normalize {name}",
                texts[:2],
                model,
                pooling=pooling,
                **normalize,
            )
    yield embed(f"{model} one text", texts[:1], model)
    for unit in (OFFSET_UNIT_UTF8_BYTES, OFFSET_UNIT_UTF16_UNITS):
        chunks: dict[str, Any] = {"chunking": CHUNKING_SENTENCES, "offset_unit": unit}
        yield embed(f"{model} offset unit {unit}", ["é. 😀 b. " + texts[0]], model, **chunks)
    as_sent = {"text_normalization": TEXT_NORMALIZATION_NONE}
    yield embed(f"{model} odd texts as sent", list(ODD.values()), model, **as_sent)
    yield embed(f"{model} every odd text", [*ODD.values(), *BLANK.values()], model)
    yield embed(f"{model} mixed texts", ["", texts[0], LONG, texts[0], UNCUT_WORD], model)
    yield embed(f"{model} only bad texts", [*BLANK.values(), LONG], model, normalize=True)
    yield embed(f"{model} 256 texts", [f"{texts[0]} {i}" for i in range(256)], model)
    for name, data_type in DATA_TYPES.items():
        yield embed(f"{model} {name}", texts[:2], model, data_type=data_type)
    for name, chunking in CHUNKINGS.items():
        yield embed(f"{model} {name}", [" ".join(texts), ""], model, **chunking)
    yield embed(f"{model} with a prompt", texts[:2], model, prompt=texts[2])
    yield embed(f"{model} with no prompt", texts[:2], model, prompt_name="")
    yield embed(f"{model} 8 dimensions", texts[:2], model, dimensions=8, force_dimensions=True)
    yield embed(f"{model} 8 dimensions without force", texts[:2], model, dimensions=8)
    yield embed(f"{model} an unknown prompt", texts[:2], model, prompt_name="no name")
    for name, truncation in TRUNCATIONS.items():
        yield embed(f"{model} too long, truncation {name}", [LONG], model, truncation=truncation)


def embed_tokens_calls(model: str, texts: Sequence[str], num_layers: int) -> Iterator[Call]:
    """Every selection of layers, and valid and invalid texts in one call."""
    for name, layers in LAYERS.items():
        chosen = (-num_layers - 1,) if layers is None else layers
        yield embed_tokens(f"{model} layers {name}", texts[:1], model, layers=chosen)
    every = range(num_layers, -1, -1)
    yield embed_tokens(f"{model} all layers, last first", texts[:1], model, layers=every)
    mixed = ["", texts[0], LONG, texts[1], ODD["decomposed accents"], ODD["emoji family"]]
    for name, data_type in DATA_TYPES.items():
        yield embed_tokens(f"{model} {name}", texts[:1], model, data_type=data_type)
    for name, number in LAYER_COMBINATIONS.items():
        options = {"layers": (0, -1), "layer_combination": number}
        yield embed_tokens(f"{model} {name}", texts[:1], model, **options)
    yield embed_tokens(f"{model} no layers to combine", texts[:1], model, layer_combination=2)
    yield embed_tokens(f"{model} words", mixed, model, unit=VECTOR_UNIT_WORDS)
    spans = [TextSpans(spans=[Span(start=0, end=3), Span(start=1, end=2)])] * len(mixed)
    yield embed_tokens(f"{model} spans", mixed, model, unit=VECTOR_UNIT_SPANS, spans=spans)
    for unit in (OFFSET_UNIT_UTF8_BYTES, OFFSET_UNIT_UTF16_UNITS):
        yield embed_tokens(f"{model} offset unit {unit}", [ODD["emoji"]], model, offset_unit=unit)
    yield embed_tokens(f"{model} spans without their unit", mixed, model, spans=spans)
    yield embed_tokens(f"{model} mixed texts", mixed, model)
    yield embed_tokens(f"{model} mixed texts, two layers", mixed, model, layers=(0, -1))
    yield embed_tokens(f"{model} only bad texts", ["", LONG], model)
    yield embed_tokens(
        f"{model} emoji as sent", [ODD["emoji"]], model, text_normalization=TEXT_NORMALIZATION_NONE
    )
    for name, truncation in TRUNCATIONS.items():
        yield embed_tokens(
            f"{model} too long, truncation {name}", [LONG], model, truncation=truncation
        )


def fill_mask_calls(model: str, text: str) -> Iterator[Call]:
    """Every option for ``text``, which has one mask; several masks, and texts without any."""
    for top_k in (1, 2, 7):
        yield fill_mask(f"{model} top {top_k}", [text], model, top_k=top_k)
    yield fill_mask(f"{model} default number of candidates", [text], model)
    yield fill_mask(f"{model} most candidates", [text], model, top_k=100)
    yield fill_mask(f"{model} only a mask", ["[MASK]"], model)
    for unit in (OFFSET_UNIT_UTF8_BYTES, OFFSET_UNIT_UTF16_UNITS):
        yield fill_mask(f"{model} offset unit {unit}", ["😀 é [MASK]"], model, offset_unit=unit)
    yield fill_mask(f"{model} as sent", [text], model, text_normalization=TEXT_NORMALIZATION_NONE)
    yield fill_mask(f"{model} several masks", [f"{text} {text} [MASK][MASK]"], model, top_k=3)
    candidates = [TextCandidates(masks=[MaskTexts(texts=["dog", "king", "."])])] * 2
    two = [f"{text} {text}", text]
    yield fill_mask(f"{model} given candidates", two, model, candidates=candidates)
    yield fill_mask(f"{model} joint", two, model, joint=True, top_k=2)
    yield fill_mask(f"{model} joint candidates", two, model, joint=True, candidates=candidates)
    yield fill_mask(f"{model} candidates of too few texts", [text], model, candidates=candidates)
    odd = [
        "The dog.",
        "",
        text,
        "[mask] [ MASK ] <mask>",
        "😀 [MASK] [CLS] [SEP] é [MASK]",
        "e\u0301 [MASK]\n[MASK]",
        LONG,
        "[MASK] " * 80,
    ]
    yield fill_mask(f"{model} mixed texts", odd, model, top_k=2)
    yield fill_mask(f"{model} only bad texts", ["", "The dog."], model)
    for name, truncation in TRUNCATIONS.items():
        yield fill_mask(
            f"{model} too long, truncation {name}",
            [f"[MASK] {LONG} [MASK]"],
            model,
            truncation=truncation,
            top_k=2,
        )
    yield fill_mask(
        f"{model} no mask left on the left", [f"[MASK] {LONG}"], model, truncation=TRUNCATION_LEFT
    )
    yield fill_mask(
        f"{model} no mask left on the right", [f"{LONG} [MASK]"], model, truncation=TRUNCATION_RIGHT
    )


def classify_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Texts and pairs, with all options, and bad requests."""
    first, second = list(texts), list(texts[::-1])
    long = " ".join([*texts, *texts])
    yield classify("several texts", [*first, ""], model)
    yield classify("several pairs", first, text_pairs=second)
    yield classify("one label", first, model, top_k=1)
    yield classify("as sent", first, model, text_normalization=TEXT_NORMALIZATION_NONE)
    yield classify("raw scores of pairs", first, model, text_pairs=second, raw_scores=True)
    for name, truncation in TRUNCATIONS.items():
        pairs = {"no pair": (), "a long pair": (long,), "one long text of a pair": (texts[0],)}
        for kind, pair in pairs.items():
            title = f"truncation {name}, {kind}"
            yield classify(title, [long], model, text_pairs=pair, truncation=truncation)
    yield classify("a pair without its second text", first[:1], model, text_pairs=[" "])
    yield classify("too few second texts", first, model, text_pairs=second[:1])
    for top_k in (0, 101):
        yield classify(f"top {top_k}", first, model, top_k=top_k)
    yield classify("no texts", [], model)


def embed_sparse_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Vectors with all options, and bad requests."""
    long = " ".join([*texts, *texts])
    few: dict[str, Any] = {"max_active_dims": 8, "return_tokens": True}
    yield embed_sparse("all weights of a text", texts[:1], model)
    yield embed_sparse("the greatest weights of several texts", [*texts, ""], **few)
    for name, truncation in TRUNCATIONS.items():
        yield embed_sparse(f"truncation {name}", [long], model, truncation=truncation, **few)
    yield embed_sparse("as sent", texts[:1], text_normalization=TEXT_NORMALIZATION_NONE)
    yield embed_sparse("no weights", texts, model, max_active_dims=0)
    yield embed_sparse("no texts", [], model)


def bulk_embed_calls(model: str, text: str) -> Iterator[Call]:
    """Streams with one good text, with faults and with bad settings."""
    yield bulk_embed(f"{model} blank texts", [("", ""), ("b", text), ("c", " ")], model)
    yield bulk_embed(f"{model} no dimensions", [("a", text)], model, dimensions=0)
    yield bulk_embed(f"{model} texts in the settings", [("", text)], model, texts=[text])


def similarity_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Comparisons with all options, and bad requests."""
    queries, compared = texts[:2], ["", *texts, texts[0], LONG]
    yield similarity("several queries", [*queries, ""], compared, model)
    yield similarity("the best text", queries, compared, model, top_k=1, text_normalization=2)
    yield similarity("8 dimensions", queries, compared, model, dimensions=8, force_dimensions=True)
    yield similarity("pooling cls", queries, compared, model, pooling=POOLING_CLS)
    yield similarity(
        "no prompts", queries, compared, model, query_prompt_name="", text_prompt_name=""
    )
    yield similarity("an unknown prompt", queries, compared, model, text_prompt_name="no name")
    for name, truncation in TRUNCATIONS.items():
        yield similarity(f"truncation {name}", queries, compared, model, truncation=truncation)
    yield similarity("no queries", [], compared, model)
    yield similarity("no texts", queries, [], model)
    yield similarity("no best texts", queries, compared, model, top_k=0)
    yield similarity("too many texts", ["a"] * 6, ["a"] * 251, model)


def rerank_calls(model: str, texts: Sequence[str]) -> Iterator[Call]:
    """Calls for a model with several labels, which does not rank documents."""
    options = {
        "top_k": 1,
        "raw_scores": True,
        "truncation": TRUNCATION_LEFT,
        "text_normalization": 1,
    }
    yield rerank("a model with several labels", texts[0], texts[1:], model, **options)
    yield rerank("no documents", texts[0], [], model)
