"""The reference outputs of decoders' bundles: their form, and searches that repeat them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attendant.v1.bundle_pb2 import Manifest
from tokenizers import Tokenizer

from attendant_export.bundle.draft import ROUNDING, rounded
from attendant_export.bundle.reference_outputs import (
    checked_token_ids,
    log_probability_bounds,
    read_search_outputs,
)
from attendant_export.data.shortlists import WITH_SHORTLISTS
from attendant_export.verify.agreement import compare, difference, scorer_difference, trace_of
from attendant_export.verify.bounds import largest
from attendant_export.verify.decoder import SEARCHES, SampleSentences
from attendant_export.verify.graph_search import search_all
from attendant_export.verify.graph_sessions import (
    DecoderGraphs,
    ParityError,
    TranslationGraphs,
)
from attendant_export.verify.language_model_graphs import open_graphs
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchTrace
from attendant_export.verify.shortlists import check_shortlists


def reference_outputs(
    texts: Mapping[str, list[int]],
    limits: list[int],
    outputs: Mapping[str, Mapping[str, list[ReferenceHypothesis]]],
) -> dict[str, Any]:
    """The content of the file of reference outputs: texts, limits and outputs by precision."""
    return {
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


def check_search_outputs(folder: Path, manifest: Manifest, tokenizer: Tokenizer) -> list[str]:
    """Search the reference texts again, with sentences that join and leave at different steps.

    Returns one line per precision and search that describes the comparison. Raises ParityError if
    token ids differ other than in ties, or if log-probabilities of the search or of the scorer
    differ from the stored ones by more than the manifest's bound. Raises BundleError or GraphError
    if the reference outputs or a graph cannot be read.
    """
    reference = read_search_outputs(folder, manifest)
    token_ids = checked_token_ids(reference["texts"], tokenizer, manifest)
    sample = SampleSentences(token_ids, [text["max_output_tokens"] for text in reference["texts"]])
    bounds = log_probability_bounds(manifest)
    checked = []
    for precision in manifest.precisions:
        graphs, bound = open_graphs(folder, precision, manifest), bounds[precision.name]
        for name, beam_size in reference["beam_sizes"].items():
            outputs = reference["outputs"][precision.name][name]
            expected = [_trace(output, beam_size) for output in outputs]
            try:
                result = _check_search(graphs, sample, expected, beam_size, bound)
            except ParityError as error:
                raise ParityError(f"{precision.name} {name}: {error}") from error
            checked.append(f"{precision.name} {name}: {result}")
        if isinstance(graphs, TranslationGraphs) and graphs.has_shortlists:
            check_shortlists(graphs, sample, bound)
            checked.append(f"{precision.name}{WITH_SHORTLISTS}: batch mates change nothing")
        graphs.close()
    return checked


def _check_search(
    graphs: DecoderGraphs,
    sample: SampleSentences,
    expected: list[SearchTrace],
    beam_size: int,
    bound: float,
) -> str:
    sources, limits = sample.sources, sample.max_tokens
    found = search_all(graphs, sources, limits, beam_size=beam_size, max_running=8, max_joining=1)
    agreement = compare(sources, expected, found, graphs.score, bound)
    if agreement.num_parted:
        raise ParityError(
            f"{agreement.num_parted} of {len(found)} reference texts get different tokens"
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
    # Only the finished hypotheses of a beam search are stored and compared, not its steps.
    return trace_of(hypothesis) if beam_size == 1 else SearchTrace([hypothesis], [])
