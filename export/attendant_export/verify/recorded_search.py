"""Records the beam search of ``transformers`` while it runs."""

import torch

from attendant_export.verify.agreement import TokenIds
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchStep


class BeamRecorder:
    """A processor of log-probabilities that keeps the candidates of a beam search.

    The rules are those of `reference_search.beam`.
    """

    def __init__(self, beam_size: int, eos_id: int, normalizes: bool, num_before: int = 1) -> None:
        """``normalizes`` says whether the search normalizes the log-probabilities.

        ``num_before`` is the number of tokens before those of an output: the start token, or a
        prompt.
        """
        self.steps: list[SearchStep] = []
        self._beam_size, self._eos_id, self._normalizes = beam_size, eos_id, normalizes
        self._num_before = num_before
        self._sums: dict[TokenIds, float] = {(): 0.0}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Keep the candidates of a step; returns ``scores``."""
        prefixes = list(
            dict.fromkeys(tuple(ids) for ids in input_ids[:, self._num_before :].tolist())
        )
        if self.steps:
            self._correct_last_step(prefixes)
        sums = torch.tensor([self._sums.get(prefix, -torch.inf) for prefix in prefixes])
        log_p = scores[: len(prefixes)]
        if self._normalizes:
            log_p = log_p.log_softmax(-1)
        values, indices = (log_p + sums[:, None]).flatten().topk(2 * self._beam_size)
        vocab_size = scores.shape[1]
        found = {
            (*prefixes[i // vocab_size], i % vocab_size): value
            for i, value in zip(indices.tolist(), values.tolist(), strict=True)
            if value > -torch.inf  # all but a forced token
        }
        self._sums = found
        running = [ids for ids in found if ids[-1] != self._eos_id]
        self.steps.append(self._step(list(found), running[: self._beam_size]))
        return scores

    def _correct_last_step(self, running: list[TokenIds]) -> None:
        """Let the last step keep what the search kept, whose sums may be rounded otherwise."""
        kept = [ids for ids in self._sums if ids in running or ids[-1] == self._eos_id]
        self.steps[-1] = self._step(kept, [ids for ids in kept if ids in running])

    def _step(self, candidates: list[TokenIds], running: list[TokenIds]) -> SearchStep:
        best, going_on = (
            [ReferenceHypothesis(ids, ()) for ids in each]
            for each in (candidates[: self._beam_size], running)
        )
        return SearchStep(best, going_on)
