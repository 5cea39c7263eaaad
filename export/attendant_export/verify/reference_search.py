"""A simple reference search over the PyTorch model: greedy and textbook beam search.

Searches keep the keys and values of earlier tokens; `score` computes every token from the whole
prefix. Written for obvious correctness, not for speed. Searches over graphs are compared with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from attendant_export.data.batches import pad
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.verify.bounds import FP32_BOUND, largest
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.score_batches import score_batches

DecoderModel: TypeAlias = EncoderDecoder | CausalLanguageModel


@dataclass(frozen=True, slots=True)
class ReferenceHypothesis:
    """Output token ids and their log-probabilities, including the end token if it occurred."""

    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]

    def score(self, length_penalty: float = 1.0) -> float:
        """The server's score: log-probability / number of tokens ^ length penalty."""
        return float(sum(self.log_probabilities) / max(1, len(self.token_ids)) ** length_penalty)

    def followed_by(self, token_id: int, log_probability: float) -> "ReferenceHypothesis":
        """This hypothesis extended by one token."""
        return ReferenceHypothesis(
            (*self.token_ids, token_id), (*self.log_probabilities, log_probability)
        )


@dataclass(frozen=True, slots=True)
class SearchStep:
    """The candidates that one step kept, best sum of log-probabilities first."""

    best: list[ReferenceHypothesis]
    """The best candidates, as many as the beam size. Those that end are finished hypotheses."""
    running: list[ReferenceHypothesis]
    """The best unfinished candidates, as many as the beam size."""


@dataclass(frozen=True, slots=True)
class SearchTrace:
    """The result of a search for one sentence, with the candidates kept at each step."""

    hypotheses: list[ReferenceHypothesis]
    """Best first."""
    steps: list[SearchStep]


@torch.inference_mode()
def greedy(
    model: DecoderModel, sources: Sequence[Sequence[int]], max_tokens: int
) -> list[ReferenceHypothesis]:
    """Greedy search over a padded batch of source token ids; prompts must have equal lengths.

    Hypotheses that reach ``max_tokens`` end without the end token.
    """
    special = model.tokens
    target, past, memory, mask = model.start(pad(sources, special.pad_id))
    log_probabilities = torch.empty(len(sources), 0)
    finished = torch.zeros(len(sources), dtype=torch.bool)
    for _ in range(max_tokens):
        hidden, past = model.decode(target[:, -1:], memory, mask, past)
        log_p = model.logits(hidden[:, -1]).float().log_softmax(-1)  # (batch, vocab)
        best, token = log_p.max(-1)
        target = torch.cat([target, token[:, None]], dim=1)
        log_probabilities = torch.cat([log_probabilities, best[:, None]], dim=1)
        finished |= token == special.eos_id
        if finished.all():
            break
    return [
        _until_end(ids, values, special.eos_id)
        for ids, values in zip(target[:, 1:].tolist(), log_probabilities.tolist(), strict=True)
    ]


@torch.inference_mode()
def teacher_forced(
    model: DecoderModel, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> Tensor:
    """Log-probabilities (batch, target, vocab) of every next token along given targets.

    Computed in one padded batch, uncached. Values beyond the end of a target are undefined.
    """
    if isinstance(model, CausalLanguageModel):
        return _continued(model, sources, targets)
    special = model.tokens
    # The padding of sources may be no token of targets. Tokens after EOS are not used.
    target_in = pad([[special.bos_id, *ids[:-1]] for ids in targets], special.eos_id)
    hidden = model(pad(sources, special.pad_id), target_in)
    return model.logits(hidden).float().log_softmax(-1)


def _continued(
    model: CausalLanguageModel,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> Tensor:
    """`teacher_forced` for targets that continue prompts."""
    texts = [[*source, *ids[:-1]] for source, ids in zip(sources, targets, strict=True)]
    hidden = model(pad(texts, model.tokens.eos_id))  # (batch, length, d_model)
    first = torch.tensor([len(source) - 1 for source in sources])
    positions = first[:, None] + torch.arange(max(map(len, targets)))  # (batch, target)
    positions = positions.clamp(max=hidden.shape[1] - 1)
    rows = hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[2]))
    return model.logits(rows).float().log_softmax(-1)


def score(
    model: DecoderModel, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Log-probability of every token of each target, uncached."""
    scored: list[list[float]] = []
    for batch in score_batches(targets, model.architecture.target_embeddings.vocab_size):
        ids = [targets[i] for i in batch]
        log_p = teacher_forced(model, [sources[i] for i in batch], ids)
        chosen = log_p.gather(2, pad(ids, model.tokens.eos_id)[:, :, None])[:, :, 0]
        scored += [row[: len(each)].tolist() for row, each in zip(chosen, ids, strict=True)]
    return scored


def check_cached(
    model: DecoderModel,
    sources: Sequence[Sequence[int]],
    found: Sequence[ReferenceHypothesis],
) -> None:
    """Raise ParityError unless a search has the log-probabilities of the model without caches."""
    scored = score(model, sources, [hypothesis.token_ids for hypothesis in found])
    pairs = zip((hypothesis.log_probabilities for hypothesis in found), scored, strict=True)
    moved = largest(abs(a - b) for each in pairs for a, b in zip(*each, strict=True))
    if not (moved <= FP32_BOUND):
        raise ParityError(
            f"log-probabilities of the model differ by {moved:.2g} with and without caches, at "
            f"most {FP32_BOUND:.0e}"
        )


def _until_end(ids: list[int], log_p: list[float], eos_id: int) -> ReferenceHypothesis:
    end = ids.index(eos_id) + 1 if eos_id in ids else len(ids)
    return ReferenceHypothesis(tuple(ids[:end]), tuple(log_p[:end]))


@torch.inference_mode()
def beam(
    model: DecoderModel, source: Sequence[int], beam_size: int, max_tokens: int
) -> SearchTrace:
    """Beam search over one sentence; finds the best ``beam_size`` hypotheses.

    Each step expands every beam and takes the 2 x ``beam_size`` best candidates by total
    log-probability. Candidates that end, and rank within the first ``beam_size``, are finished. The
    best ``beam_size`` of the others continue. The search stops when ``beam_size`` hypotheses have
    finished and the best running one, ended at its present length, would not beat the worst of
    them. At ``max_tokens``, all running hypotheses count as finished.
    """
    cached = _CachedBeams(model, source)

    def expand(running: list[ReferenceHypothesis]) -> list[ReferenceHypothesis]:
        return best_continuations(running, cached.next(running), 2 * beam_size)

    return search_beams(expand, model.tokens.eos_id, beam_size, max_tokens)


def search_beams(
    expand: Callable[[list[ReferenceHypothesis]], list[ReferenceHypothesis]],
    eos_id: int,
    beam_size: int,
    max_tokens: int,
    length_penalty: float = 1.0,
) -> SearchTrace:
    """The search of `beam`, for any model. ``expand`` gives the best candidates of running beams.

    These are 2 x ``beam_size``, best total log-probability first.
    """
    running = [ReferenceHypothesis((), ())]
    finished: list[ReferenceHypothesis] = []
    steps: list[SearchStep] = []

    def ranked(hypotheses: list[ReferenceHypothesis]) -> list[ReferenceHypothesis]:
        return sorted(hypotheses, key=lambda h: -h.score(length_penalty))

    for _ in range(max_tokens):
        expanded = expand(running)
        ended = [h for h in expanded[:beam_size] if h.token_ids[-1] == eos_id]
        finished = ranked([*finished, *ended])[:beam_size]
        running = [h for h in expanded if h.token_ids[-1] != eos_id][:beam_size]
        steps.append(SearchStep(expanded[:beam_size], running))
        best_running = max(h.score(length_penalty) for h in running)
        if len(finished) == beam_size and best_running <= finished[-1].score(length_penalty):
            break
    else:
        finished = ranked([*finished, *running])
    return SearchTrace(finished[:beam_size], steps)


def best_continuations(
    running: list[ReferenceHypothesis], log_p: Tensor, num_candidates: int
) -> list[ReferenceHypothesis]:
    """The best continuations of all beams by one token, best sum first.

    ``log_p`` has the log-probabilities of the next tokens (beams, vocab).
    """
    sums = torch.tensor([sum(h.log_probabilities) for h in running])
    best = (log_p + sums[:, None]).flatten().topk(num_candidates).indices.tolist()
    vocab = log_p.shape[1]
    return [
        running[i // vocab].followed_by(i % vocab, log_p[i // vocab, i % vocab].item())
        for i in best
    ]


class _CachedBeams:
    """The decoder over the running beams of one source, with its state at each beam's end."""

    def __init__(self, model: DecoderModel, source: Sequence[int]) -> None:
        self._model = model
        start = model.start(torch.tensor([list(source)]))
        self._first_token = int(start.tokens)
        self._past, self._memory, self._mask = start.past, start.memory, start.memory_mask
        self._rows: dict[tuple[int, ...], int] = {(): 0}
        """The row of each beam in the last step, by its tokens."""

    def next(self, running: list[ReferenceHypothesis]) -> Tensor:
        """The log-probabilities of the next tokens of all beams (beams, vocab).

        Each beam must extend a beam of the previous call by one token.
        """
        model, beams = self._model, len(running)
        if self._past is not None:
            self._past = self._past.of_rows([self._rows[h.token_ids[:-1]] for h in running])
        last = [[h.token_ids[-1] if h.token_ids else self._first_token] for h in running]
        memory = [
            each and (each[0].expand(beams, -1, -1, -1), each[1].expand(beams, -1, -1, -1))
            for each in self._memory
        ]
        hidden, self._past = model.decode(torch.tensor(last), memory, self._mask, self._past)
        self._rows = {h.token_ids: row for row, h in enumerate(running)}
        return model.logits(hidden[:, -1]).float().log_softmax(-1)
