"""Word alignment by cross-attention: the choice of heads, and the check of aligner graphs."""

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Alignment
from attendant_manifest.sizes import num_source_heads
from torch import Tensor

from attendant_export.data.batches import pad
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.stack import each_layer
from attendant_export.verify.attention import recorded
from attendant_export.verify.bounds import largest
from attendant_export.verify.graph_sessions import TranslationGraphs
from attendant_export.verify.reference_search import score

MAX_PAIRS, MAX_TOKENS = 32, 40
"""Pairs that heads are chosen by, and tokens of each side of a pair."""
MIN_EFFECT = 1.0
"""Least effect of a source token, in nats, on a target token that is certainly aligned to it."""
MAX_HEADS = 8


@dataclass(frozen=True, slots=True)
class _AlignedPair:
    """A pair with the source positions that its target tokens certainly belong to."""

    weights: Tensor
    """Cross-attention weights (heads, target, source)."""
    candidates: slice
    """Source positions that stand for text."""
    positions: dict[int, int]
    """The source position, among the candidates, of each certainly aligned target position."""


def num_heads(architecture: Architecture) -> list[int]:
    """The number of heads by which each decoder layer attends to the source."""
    return [num_source_heads(group) for group in each_layer(architecture.decoder)]


def head_weights(architecture: Architecture, alignment: Alignment) -> np.ndarray:
    """The input head_weights of an aligner that averages the heads of ``alignment``."""
    firsts = [0, *accumulate(num_heads(architecture))]
    weights = np.zeros(firsts[-1], np.float32)
    for head in alignment.heads:
        weights[firsts[head.layer] + head.head] = 1 / len(alignment.heads)
    return weights


@torch.inference_mode()
def cross_attention(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> Tensor:
    """Weights (batch, heads of all layers, target, source) of given targets, teacher-forced."""
    special = model.tokens
    target_in = pad([[special.bos_id, *ids[:-1]] for ids in targets], special.eos_id)
    with recorded(layer.attention_to_source for layer in model.decoder.layers) as weights:
        model(pad(sources, special.pad_id), target_in)
    return torch.cat(weights, dim=1).float()


def choose_heads(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> Alignment:
    """The heads that best find the source token on which each target token depends most.

    A target token depends on a source token as much as its log-probability falls when the model
    cannot see that token (Li et al., 2019, "On the Word Alignment from Neural Machine
    Translation"). This takes a pass for each source token and no text that people have aligned.
    """
    pairs = _aligned_pairs(model, sources, targets)
    found = {mode: _best_heads(pairs, shift=int(mode)) for mode in (False, True)}
    uses_reading_positions = found[True][1] > found[False][1]
    alignment = Alignment(uses_reading_positions=uses_reading_positions)
    firsts = [0, *accumulate(num_heads(model.architecture))]
    for number in sorted(found[uses_reading_positions][0]):
        layer = next(i for i, first in enumerate(firsts[1:]) if number < first)
        alignment.heads.add(layer=layer, head=number - firsts[layer])
    return alignment


def aligner_difference(
    graphs: TranslationGraphs,
    model: EncoderDecoder,
    alignment: Alignment,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> float:
    """Largest difference between weights of the aligner and of the model."""
    factors = head_weights(model.architecture, alignment)
    differences = []
    for source, target in zip(sources, targets, strict=True):
        (found,) = graphs.align([source], [target], factors)
        weights = cross_attention(model, [source], [target])[0].numpy()
        expected = np.einsum("h,hts->ts", factors, weights)
        differences.append(float(np.abs(found - expected).max()))
    return largest(differences)


def _aligned_pairs(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[_AlignedPair]:
    short = [
        (source, target)
        for source, target in zip(sources, targets, strict=True)
        if len(source) <= MAX_TOKENS and 1 < len(target) <= MAX_TOKENS
    ][:MAX_PAIRS]
    # Tokens that all sources share, such as EOS and those of languages, stand for no text.
    several = len(short) > 1
    start = len(os.path.commonprefix([list(s) for s, _ in short])) if several else 0
    end = len(os.path.commonprefix([list(s[::-1]) for s, _ in short])) if several else 1
    pairs = []
    for source, target in short:
        candidates = slice(start, len(source) - max(1, end))
        if candidates.start < candidates.stop:
            effects = _effects(model, source, target)[:-1, candidates]
            positions = {
                j: int(effect.argmax())
                for j, effect in enumerate(effects)
                if effect.max() > MIN_EFFECT
            }
            weights = cross_attention(model, [source], [target])[0]
            pairs.append(_AlignedPair(weights, candidates, positions))
    return pairs


def _effects(model: EncoderDecoder, source: Sequence[int], target: Sequence[int]) -> Tensor:
    """How much each target token's log-probability falls without each source token.

    The shape is (target, source).
    """
    hidden = [[*source[:i], model.tokens.pad_id, *source[i + 1 :]] for i in range(len(source))]
    whole, *without = score(model, [source, *hidden], [target] * (len(source) + 1))
    return (torch.tensor(whole) - torch.tensor(without)).T


def _best_heads(pairs: Sequence[_AlignedPair], shift: int) -> tuple[list[int], float]:
    """The numbers of the best heads, and the share of positions that their average finds.

    Position j is aligned by the weights of position j + ``shift``.
    """
    if not pairs:
        return [0], 0.0
    total = sum(len(pair.positions) for pair in pairs)

    def share(heads: Sequence[int]) -> float:
        hits = 0
        for pair in pairs:
            rows = pair.weights[list(heads)].mean(0)[:, pair.candidates]
            hits += sum(int(rows[j + shift].argmax()) == i for j, i in pair.positions.items())
        return hits / max(1, total)

    alone = [(share([head]), head) for head in range(len(pairs[0].weights))]
    ranked = [head for _, head in sorted(alone, key=lambda each: -each[0])]
    chosen, best = ranked[:1], share(ranked[:1])
    for head in ranked[1:MAX_HEADS]:
        if (with_head := share([*chosen, head])) > best:
            chosen, best = [*chosen, head], with_head
    return chosen, best
