"""What is particular to bundles of translation models: graphs, verification, reference outputs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attendant.v1.bundle_pb2 import (
    MODEL_KIND_TRANSLATION,
    CorpusParity,
    Limits,
    Manifest,
    PrecisionGraphs,
    SpecialTokens,
    TranslationSizes,
)
from tokenizers import Tokenizer

from attendant_export.bundle_draft import ROUNDING, Draft, rounded
from attendant_export.dataset import encode, read_pairs
from attendant_export.graph_search import search_all
from attendant_export.graph_sessions import ParityError, TranslationGraphs
from attendant_export.manifest import WITH_SHORTLISTS
from attendant_export.onnx_graphs import write_translation_graphs
from attendant_export.quality import (
    compare_corpora,
    max_output_tokens,
    measure_translation,
    translate,
)
from attendant_export.search import ReferenceHypothesis, SearchTrace
from attendant_export.shortlist import MAX_PAIRS, Shortlists, learn_shortlists
from attendant_export.tokenizer import UNK, special_token_id
from attendant_export.transformer import Transformer
from attendant_export.translation_training import load_translation_model
from attendant_export.verify import (
    SEARCHES,
    SampleSentences,
    TranslationVerifier,
    compare,
    difference,
    largest,
    scorer_difference,
    trace_of,
)
from attendant_export.verify_shortlists import check_shortlists

logger = logging.getLogger(__name__)

MAX_BLEU_LOSS = 0.5
"""A precision that loses more against fp32 is warned of."""


def write_translation_files(draft: Draft) -> None:
    """Write and verify the graphs of a run's best model and complete the manifest."""
    model, tokenizer = load_translation_model(draft.run_dir)
    _describe(draft.manifest, model, tokenizer, draft.max_tokens)
    draft.add_tokenizer(tokenizer)
    draft.manifest.target_tokenizer = draft.manifest.source_tokenizer
    texts = draft.reference_texts(tokenizer)
    limits = [max_output_tokens(ids, draft.max_tokens) for ids in texts.values()]
    sample = SampleSentences(list(texts.values()), limits)
    shortlists = _learn_shortlists(draft, tokenizer)
    verifier = TranslationVerifier(model, sample)
    verified = {}
    fp32_texts: list[str] = []
    for precision in draft.all_precisions():
        folder = draft.folder_of(precision)
        written = write_translation_graphs(model, precision, folder, draft.max_tokens, shortlists)
        graphs = open_translation_graphs(folder, written, draft.manifest)
        logger.info("verifying %s", precision)
        verified[precision] = verifier.verify(precision, graphs)
        parity = verified[precision].parity
        valid = (graphs, tokenizer, draft.valid.sources, draft.max_tokens)
        translated = translate(*valid)
        if precision == "fp32":
            fp32_texts = translated
        else:
            parity.corpus.CopyFrom(_compare_corpora(draft, precision, fp32_texts, translated))
        if graphs.has_shortlists:
            check_shortlists(graphs, sample, parity.log_probability_bound)
            translated = translate(*valid, uses_shortlists=True)
            name = precision + WITH_SHORTLISTS
            parity.shortlist_corpus.CopyFrom(_compare_corpora(draft, name, fp32_texts, translated))
        draft.manifest.parity.precisions.append(parity)
        if precision in draft.precisions:
            draft.manifest.precisions.append(written)
            for corpus in draft.tests:
                logger.info("measuring %s on %s", precision, corpus.name)
                draft.manifest.quality.extend(
                    measure_translation(precision, graphs, tokenizer, corpus, draft.max_tokens)
                )
    outputs = {name: verified[name].outputs for name in draft.precisions}
    draft.add_reference_outputs(_reference_outputs(texts, limits, outputs))


def _learn_shortlists(draft: Draft, tokenizer: Tokenizer) -> Shortlists | None:
    if draft.shortlist_pairs is None:
        return None
    pairs = read_pairs(draft.shortlist_pairs, draft.swap)
    pairs = pairs[:: len(pairs) // MAX_PAIRS + 1]
    sources, targets = (encode([pair[i] for pair in pairs], tokenizer) for i in range(2))
    special_tokens = draft.manifest.special_tokens
    special_ids = [token_id for _, token_id in special_tokens.ListFields()]
    vocab_size = draft.manifest.translation_sizes.vocab_size
    return learn_shortlists(zip(sources, targets, strict=True), vocab_size, special_ids)


def open_translation_graphs(
    folder: Path, graphs: PrecisionGraphs, manifest: Manifest
) -> TranslationGraphs:
    """The graphs of one precision in ``folder``."""
    return TranslationGraphs(folder, graphs, manifest.translation_sizes, manifest.special_tokens)


def _describe(
    manifest: Manifest, model: Transformer, tokenizer: Tokenizer, max_tokens: int
) -> None:
    config = model.config
    manifest.kind = MODEL_KIND_TRANSLATION
    manifest.translation_sizes.CopyFrom(
        TranslationSizes(
            d_model=config.d_model,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            d_feed_forward=config.d_ff,
            num_encoder_layers=config.num_encoder_layers,
            num_decoder_layers=config.num_decoder_layers,
            vocab_size=config.vocab_size,
        )
    )
    manifest.special_tokens.CopyFrom(
        SpecialTokens(
            pad_id=config.pad_id,
            bos_id=config.bos_id,
            eos_id=config.eos_id,
            unk_id=special_token_id(tokenizer, UNK),
        )
    )
    manifest.limits.CopyFrom(Limits(max_source_tokens=max_tokens, max_target_tokens=max_tokens))


def _compare_corpora(
    draft: Draft, name: str, fp32_texts: list[str], texts: list[str]
) -> CorpusParity:
    corpus = compare_corpora(draft.valid, "greedy", fp32_texts, texts)
    if corpus.fp32_bleu - corpus.bleu > MAX_BLEU_LOSS:
        logger.warning(
            "%s loses %.2f BLEU against fp32: %.2f instead of %.2f on %s",
            name,
            corpus.fp32_bleu - corpus.bleu,
            corpus.bleu,
            corpus.fp32_bleu,
            corpus.dataset,
        )
    return corpus


def _reference_outputs(
    texts: Mapping[str, list[int]],
    limits: list[int],
    outputs: Mapping[str, Mapping[str, list[ReferenceHypothesis]]],
) -> dict[str, Any]:
    return {
        "length_penalty": 1.0,
        "beam_sizes": SEARCHES,
        "texts": [
            {"text": text, "token_ids": ids, "max_output_tokens": limit}
            for (text, ids), limit in zip(texts.items(), limits, strict=True)
        ],
        "outputs": {
            precision: {
                search: [
                    {
                        "token_ids": hypothesis.token_ids,
                        "log_probabilities": rounded(hypothesis.log_probabilities),
                    }
                    for hypothesis in hypotheses
                ]
                for search, hypotheses in searches.items()
            }
            for precision, searches in outputs.items()
        },
    }


def check_translation_outputs(
    folder: Path, manifest: Manifest, tokenizer: Tokenizer, reference: dict[str, Any]
) -> list[str]:
    """Search the reference texts again, joining and leaving at different steps.

    Returns what was compared, a line for each precision and search. Raises ParityError that names
    those whose tokens are others, not in ties, or whose log-probabilities are further from the
    stored ones, in the search or by the scorer, than the manifest's bound.
    """
    sources = [entry["token_ids"] for entry in reference["texts"]]
    if [tokenizer.encode(entry["text"]).ids for entry in reference["texts"]] != sources:
        raise ParityError("the tokenizer gives other token ids for the reference texts")
    # A precision without a bound may not differ at all.
    bounds = {p.precision: p.log_probability_bound for p in manifest.parity.precisions}
    checked = []
    for precision in manifest.precisions:
        graphs = open_translation_graphs(folder, precision, manifest)
        for name, beam_size in reference["beam_sizes"].items():
            outputs = reference["outputs"][precision.name][name]
            expected = [_trace(output, beam_size) for output in outputs]
            try:
                result = _check_search(
                    graphs, reference["texts"], expected, beam_size, bounds.get(precision.name, 0.0)
                )
            except ParityError as error:
                raise ParityError(f"{precision.name} {name}: {error}") from error
            checked.append(f"{precision.name} {name}: {result}")
        if graphs.has_shortlists:
            limits = [entry["max_output_tokens"] for entry in reference["texts"]]
            bound = bounds.get(precision.name, 0.0)
            check_shortlists(graphs, SampleSentences(sources, limits), bound)
            checked.append(f"{precision.name}{WITH_SHORTLISTS}: batch mates change nothing")
    return checked


def _check_search(
    graphs: TranslationGraphs,
    texts: list[dict[str, Any]],
    expected: list[SearchTrace],
    beam_size: int,
    bound: float,
) -> str:
    sources = [text["token_ids"] for text in texts]
    limits = [text["max_output_tokens"] for text in texts]
    found = search_all(graphs, sources, limits, beam_size=beam_size, max_running=8, max_joining=1)
    agreement = compare(sources, expected, found, graphs.score, bound)
    if agreement.num_parted:
        raise ParityError(
            f"{agreement.num_parted} of {len(found)} reference texts get other tokens"
        )
    stored = [trace.hypotheses[0] for trace in expected]
    pairs = zip(stored, (trace.hypotheses[0] for trace in found), strict=True)
    searched = largest(difference(a, b) for a, b in pairs)
    scored = scorer_difference(graphs, sources, stored)
    if not (searched <= bound + ROUNDING and scored <= bound + ROUNDING):
        raise ParityError(
            f"log-probabilities differ from the reference outputs by {searched:.2g} in the search "
            f"and {scored:.2g} by the scorer; the bound is {bound:.2g}"
        )
    return (
        f"{agreement.num_identical} of {len(found)} reference texts get the same tokens, "
        f"{agreement.num_ties} differ in ties; log-probabilities, searched and scored, "
        f"within {bound:.2g}"
    )


def _trace(output: dict[str, Any], beam_size: int) -> SearchTrace:
    hypothesis = ReferenceHypothesis(tuple(output["token_ids"]), tuple(output["log_probabilities"]))
    # The steps of a beam search are not stored: its finished hypotheses are compared.
    return trace_of(hypothesis) if beam_size == 1 else SearchTrace([hypothesis], [])
