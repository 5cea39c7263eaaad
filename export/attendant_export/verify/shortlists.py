"""Checks that what a source is translated to, from its shortlist, does not depend on the others.

What graphs with shortlists compute is verified like all others, with lists of all tokens.
"""

from attendant_export.verify.graph_search import search_all
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.translation import (
    SEARCHES,
    SampleSentences,
    compare,
    difference,
    largest,
)


def check_shortlists(graphs: TranslationGraphs, sample: SampleSentences, bound: float) -> None:
    """Search with each sentence alone and with others that join and leave.

    Raises ParityError if a sentence gets a token that is not on its list, or with others than alone
    other tokens, not in ties, or log-probabilities that differ by more than ``bound``.
    """
    sources = sample.sources
    lists = [set(graphs.shortlists([source])[0].tolist()) for source in sources]
    for name, beam_size in SEARCHES.items():
        own = [allowed.union(range(2 * beam_size)) for allowed in lists]
        for step in graphs.steps_for(beam_size, uses_shortlists=True):
            alone, among_others = (
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
            agreement = compare(sources, alone, among_others, graphs.score, bound)
            moved = largest(
                difference(a, b.hypotheses[0]) for a, b in zip(best, among_others, strict=True)
            )
            if agreement.num_parted or not (moved <= bound):
                raise ParityError(
                    f"{name} by {step} with shortlists: {agreement.num_parted} sentences get other "
                    f"tokens among others than alone; log-probabilities differ by {moved:.2g}"
                )
