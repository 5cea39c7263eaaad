"""The cross-entropy of scores over a vocabulary, computed a few positions at a time.

The scores of a whole batch are the largest tensors of a training step by far: 115 MB for 3,600
tokens and a vocabulary of 8,000. On a CPU, the plain operations spend most of their time on memory
traffic and page faults.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK_SCORES = {"cpu": 2_000_000, "cuda": 128_000_000}
"""Limit of the scores that are computed at a time, by device: 8 MB in float32 on a CPU, and 512 MB
on a GPU, where many small products would take longer than one large one."""


class _CrossEntropy(torch.autograd.Function):
    """Sum of the label-smoothed cross-entropies of scores (positions, vocabulary).

    Keeps the scores only, in their own precision, and computes in float32.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        exact = scores.float()
        log_sums = exact.logsumexp(-1)  # (positions)
        chosen = exact.gather(-1, targets[:, None]).squeeze(-1)
        loss = log_sums - (1 - label_smoothing) * chosen
        if label_smoothing:
            loss -= label_smoothing * exact.mean(-1)
        ctx.save_for_backward(scores, targets, log_sums)
        ctx.label_smoothing = label_smoothing
        return loss.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        scores, targets, log_sums = ctx.saved_tensors
        smoothing = ctx.label_smoothing
        slopes = (scores.float() - log_sums[:, None]).exp_()  # probabilities
        if smoothing:
            slopes -= smoothing / scores.shape[-1]
        wanted = slopes.new_full((len(targets), 1), smoothing - 1)
        slopes.scatter_add_(-1, targets[:, None], wanted)
        return slopes.mul_(gradients[0]).to(scores.dtype), None, None


def summed_cross_entropy(
    score: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The sum of the cross-entropies of ``targets`` (positions), a scalar.

    ``score`` maps hidden states (positions, d_model) to scores (positions, vocabulary); it is
    called for a few positions at a time. ``label_smoothing`` is the probability that the wanted
    distribution spreads evenly over the vocabulary (Szegedy et al., 2016, section 7).
    """
    vocab_size = score(hidden[:0]).shape[-1]
    num_positions = max(1, CHUNK_SCORES[hidden.device.type] // vocab_size)
    losses = [
        _CrossEntropy.apply(score(chunk), wanted, label_smoothing)  # type: ignore[no-untyped-call]
        for chunk, wanted in zip(
            hidden.split(num_positions), targets.split(num_positions), strict=True
        )
    ]
    return torch.stack(losses).sum()
