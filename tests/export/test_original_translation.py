"""Imported translation models are compared with the original implementation."""

import logging

import pytest
import torch
from attendant.v1.architecture_pb2 import POSITION_KIND_SINUSOIDAL_HALVED, Positions
from attendant_export.bundle.description import describe_original
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.original import compare_model
from attendant_export.bundle.reference_outputs import read_search_outputs
from attendant_export.models.embeddings import sinusoids
from attendant_export.verify import original, original_translation, original_translator
from attendant_export.verify.agreement import trace_of
from attendant_export.verify.graph_search import SearchRules, search_all
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.reference_search import (
    ReferenceHypothesis,
    SearchTrace,
    beam,
    greedy,
    score,
)
from safetensors.torch import load_file, save_file

from tests.conftest import imports_compare_one_of
from tests.support.bundles import one_thread
from tests.support.imports import import_, read_translator
from tests.support.marian_checkpoints import WIDTH, write_marian

NUM_TEXTS = 10
BATCHES = original_translation.BATCHINGS


class ModelAsOriginal:
    """The PyTorch model of an imported checkpoint in the place of the original."""

    implementation, version = "transformers", "0"
    default_beam_size, length_penalty = 1, 1.0

    def __init__(self, source):
        imported = read_translator(source)
        self.model, self.tokenizer = imported.model, imported.tokenizers.source
        self.unk_id = imported.tokenizers.source_tokens.unk_id
        self.renumbered, self.altered, self.alters_batches = "", None, False

    def token_ids(self, text):
        size = self.model.architecture.source_embeddings.vocab_size
        ids = [i if i < size else self.unk_id for i in self.tokenizer.encode(text).ids]
        return [0] if text == self.renumbered else ids

    def sample_ids(self, sample):
        return self.token_ids(sample.text)

    def trace(self, sample, beam_size, max_tokens):
        source = list(sample.token_ids)
        if beam_size == 1:
            found = trace_of(greedy(self.model, [source], max_tokens)[0])
        else:
            found = beam(self.model, source, beam_size, max_tokens)
        if source == self.altered:
            best = ReferenceHypothesis((*found.hypotheses[0].token_ids, 5), ())
            return SearchTrace([best], trace_of(best).steps)
        return found

    def translate(self, samples, beam_size, max_tokens):
        found = [self.trace(s, beam_size, max_tokens).hypotheses[0].token_ids for s in samples]
        return [(*ids, 5) for ids in found] if len(samples) > 1 and self.alters_batches else found

    def score(self, sources, targets, beam_size):
        return score(self.model, sources, targets)

    @torch.inference_mode()
    def run(self, source, target):
        _, _, memory, _ = self.model.start(torch.tensor([list(source)]))
        states = [state.numpy() for layer in filter(None, memory) for state in layer]
        return states, score(self.model, [source], [target])[0]


@pytest.fixture(scope="module", autouse=True)
def all_texts():
    """All sample texts, because only the short ones are compared."""
    with imports_compare_one_of(1):
        yield


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A checkpoint and its bundle of fp32 and int8."""
    folder = tmp_path_factory.mktemp("imported")
    source = write_marian(folder / "source", varies=True, bad_words_ids=None)
    with one_thread():
        return source, import_(
            source, folder / "bundles", "--precisions", "fp32,int8", "--max-tokens", "24"
        )


@pytest.fixture
def theirs(imported):
    return ModelAsOriginal(imported[0])


@pytest.fixture(scope="module")
def texts(imported):
    """The first reference texts."""
    _, bundle = imported
    return read_search_outputs(bundle, read_manifest(bundle))["texts"][:NUM_TEXTS]


@pytest.fixture
def compare(imported, texts, theirs, monkeypatch):
    """Compares the bundle with the original, on its first reference texts."""
    source, bundle = imported
    manifest = read_manifest(bundle)
    manifest.limits.max_target_tokens = 12
    monkeypatch.setattr("attendant_export.bundle.original.OriginalTranslator", lambda _: theirs)

    def run(precisions=("fp32", "int8")):
        folders = [(bundle, p) for p in manifest.precisions if p.name in precisions]
        with one_thread():
            return compare_model(source, manifest, {"texts": texts}, folders)

    return run


def test_states_log_probabilities_and_searches_of_all_precisions_are_compared(compare):
    parity = compare()
    assert (parity.num_texts, parity.num_different_token_ids) == (NUM_TEXTS, 0)
    fp32, int8 = parity.translations
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert 0 < fp32.max_encoder_difference < 1e-4 < int8.max_encoder_difference
    assert 0 < fp32.max_log_probability_difference < 1e-4 < int8.max_log_probability_difference
    assert [(entry.search, entry.batching) for entry in fp32.tokens] == [
        (search, batching) for search in ("greedy", "beam4") for batching in BATCHES
    ]
    assert {entry.num_identical + entry.num_ties for entry in fp32.tokens} == {NUM_TEXTS}
    line = f"fp32 beam4 ragged: 0 of {NUM_TEXTS} outputs have other tokens, 0 more in ties"
    assert line in describe_original(parity)


def test_the_beam_of_the_checkpoint_is_compared_as_well(compare, theirs):
    theirs.default_beam_size = 3
    searches = {entry.search for entry in compare(["fp32"]).translations[0].tokens}
    assert searches == {"greedy", "beam4", "beam3"}


def test_another_translation_of_the_original_fails(compare, theirs, texts):
    theirs.altered = texts[0]["token_ids"]
    message = f"greedy single: 1 of {NUM_TEXTS} sentences get other tokens; greedy batched: 1"
    with pytest.raises(ParityError, match=message):
        compare(["fp32"])


def test_a_translation_that_the_original_changes_in_its_batch_is_a_tie(compare, theirs):
    theirs.alters_batches = True
    for entry in compare(["fp32"]).translations[0].tokens:
        assert entry.num_ties == (NUM_TEXTS if entry.batching == "batched" else 0)


def test_other_weights_fail(compare, theirs):
    with torch.no_grad():
        theirs.model.decoder.layers[0].feed_forward[0].weight *= 1.1
    with pytest.raises(ParityError, match="fp32 does not follow transformers: log-prob"):
        compare(["fp32"])


def test_another_encoder_fails(compare, theirs):
    with torch.no_grad():
        theirs.model.encoder.layers[0].feed_forward[0].weight *= 1.1
    with pytest.raises(ParityError, match="keys and values differ by"):
        compare(["fp32"])


def test_a_bundle_of_int8_is_told_from_another_model(compare, theirs):
    assert compare(["int8"]).translations[0].precision == "int8"
    with torch.no_grad():
        theirs.model.head.bias[:] = 10 * torch.randn(
            theirs.model.head.bias.shape, generator=torch.Generator().manual_seed(1)
        )
    with pytest.raises(ParityError, match="log-probabilities differ by .* on average"):
        compare(["int8"])


def test_texts_with_other_token_ids_are_counted_and_one_is_named(compare, theirs, texts, caplog):
    theirs.renumbered = texts[1]["text"]
    with caplog.at_level(logging.WARNING):
        assert compare(["fp32"]).num_different_token_ids == 1
    assert f"other token ids for 1 of {NUM_TEXTS} texts" in caplog.text


def test_suppressed_tokens_are_never_found_and_the_length_penalty_ranks(imported, texts):
    _, bundle = imported
    manifest = read_manifest(bundle)
    graphs = TranslationGraphs(bundle, manifest.precisions[0], manifest)
    sources, limits = [text["token_ids"] for text in texts], [12] * NUM_TEXTS
    plain = search_all(graphs, sources, limits)
    tokens = [i for trace in plain for i in trace.hypotheses[0].token_ids if i]
    often = max(set(tokens), key=tokens.count)
    for beam_size in (1, 4):
        for step in graphs.steps_for(beam_size):
            found = search_all(
                *(graphs, sources, limits),
                beam_size=beam_size,
                step=step,
                rules=SearchRules(length_penalty=0.0, suppressed_token_ids=[often]),
            )
            assert all(often not in h.token_ids for trace in found for h in trace.hypotheses)
            for trace in found:
                sums = [sum(h.log_probabilities) for h in trace.hypotheses]
                assert sums == sorted(sums, reverse=True)


def test_forced_tokens_begin_every_output_and_cost_nothing(imported, texts):
    _, bundle = imported
    manifest = read_manifest(bundle)
    graphs = TranslationGraphs(bundle, manifest.precisions[0], manifest)
    sources, limits = [text["token_ids"] for text in texts], [12] * NUM_TEXTS
    forced = [[7, 8, 9][: i % 4] for i in range(NUM_TEXTS)]
    for beam_size in (1, 4):
        outputs = []
        for step in graphs.steps_for(beam_size):
            found = search_all(
                *(graphs, sources, limits),
                beam_size=beam_size,
                step=step,
                max_running=3,
                forced_token_ids=forced,
            )
            outputs.append([trace.hypotheses[0].token_ids for trace in found])
            for source, ids, trace in zip(sources, forced, found, strict=True):
                for hypothesis in trace.hypotheses:
                    tokens, values = hypothesis.token_ids, hypothesis.log_probabilities
                    assert list(tokens[: len(ids)]) == ids
                    assert not any(values[: len(ids)])
                    (scored,) = graphs.score([source], [tokens])
                    own = pytest.approx(scored[len(ids) :], abs=1e-4)
                    assert list(values[len(ids) :]) == own
        assert all(each == outputs[0] for each in outputs)


def test_the_original_needs_transformers(monkeypatch, tmp_path):
    monkeypatch.setattr(original, "find_spec", lambda name: None)
    with pytest.raises(original.OriginalError, match="needs transformers"):
        original_translator.OriginalTranslator(tmp_path)


@pytest.mark.parametrize("has_table", [False, True])
def test_positions_are_exact_although_weights_are_in_half_precision(has_table, tmp_path):
    pytest.importorskip("transformers")
    source = write_marian(tmp_path / "source", varies=True, dtype="float16", torch_dtype="float16")
    path = source / "model.safetensors"
    tensors = {name: tensor.half() for name, tensor in load_file(path).items()}
    part = Positions(kind=POSITION_KIND_SINUSOIDAL_HALVED)
    if has_table:
        for side in ("encoder", "decoder"):
            tensors[f"model.{side}.embed_positions.weight"] = sinusoids(part, 130, WIDTH).half()
    save_file(tensors, path)
    texts = [10, 11, 12, 13, 0], [7, 8, 9, 0]
    states, log_p = ModelAsOriginal(source).run(*texts)
    found, found_log_p = original_translator.OriginalTranslator(source).run(*texts)
    assert log_p == pytest.approx(found_log_p, abs=1e-4)
    for ours, theirs in zip(states, found, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
