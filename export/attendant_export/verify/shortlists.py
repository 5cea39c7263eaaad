"""Checks that translation with a shortlist does not depend on the other sources of a batch.

`verify.translation` compares step graphs with shortlists with the model, on lists of all tokens.
"""

from attendant_export.verify.agreement import compare, difference
from attendant_export.verify.bounds import largest
from attendant_export.verify.decoder import SEARCHES, SampleSentences
from attendant_export.verify.graph_search import search_all
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs


def check_shortlists(graphs: TranslationGraphs, sample: SampleSentences, bound: float) -> None:
    """Search for each sentence alone, and in a batch that sentences join and leave.

    Raises ParityError if an output has a token outside the sentence's shortlist. Also raises it if
    the two searches differ in tokens, other than in ties, or in log-probabilities by more than
    ``bound``.
    """
    sources = sample.sources
    lists = [set(graphs.shortlists([source])[0].tolist()) for source in sources]
    for name, beam_size in SEARCHES.items():
        own = [allowed.union(range(2 * beam_size)) for allowed in lists]
        for step in graphs.steps_for(beam_size, uses_shortlists=True):
            alone, in_batch = (
                search_all(
                    *(graphs, sources, sample.max_tokens),
                    beam_size=beam_size,
                    step=step,
                    max_running=max_running,
                    uses_shortlists=True,
                )
                for max_running in (1, 8)
            )
            best = [trace.hypotheses[0] for trace in alone]
            if not all(set(h.token_ids) <= ids for h, ids in zip(best, own, strict=True)):
                raise ParityError(f"{name} by {step} finds tokens that are not on the shortlist")
            agreement = compare(sources, alone, in_batch, graphs.score, bound)
            moved = largest(
                difference(a, b.hypotheses[0]) for a, b in zip(best, in_batch, strict=True)
            )
            if agreement.num_parted or not (moved <= bound):
                raise ParityError(
                    f"{name} by {step} with shortlists: {agreement.num_parted} sentences get "
                    "different tokens in a batch than alone; log-probabilities differ by "
                    f"{moved:.2g}"
                )
