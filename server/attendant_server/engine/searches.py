"""Chooses the search for the options of a sentence."""

from attendant_server.engine.beam_search import BeamSearch
from attendant_server.engine.calls import SearchOptions
from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.grouped_search import AlternativesSearch, DiverseBeamSearch
from attendant_server.engine.sampling import SampledSearch
from attendant_server.engine.search import Search


def search_of(options: SearchOptions, seed: str, start_token_id: int, eos_id: int) -> Search:
    """A new search; ``seed`` is that of its random numbers if tokens are drawn."""
    if options.sampling is not None:
        return SampledSearch(options, seed, start_token_id, eos_id)
    if options.num_alternatives > 1:
        return AlternativesSearch(options, start_token_id, eos_id)
    if options.num_beam_groups > 1:
        return DiverseBeamSearch(options, start_token_id, eos_id)
    if options.beam_size > 1:
        return BeamSearch(options, start_token_id, eos_id)
    return GreedySearch(options, start_token_id, eos_id)
