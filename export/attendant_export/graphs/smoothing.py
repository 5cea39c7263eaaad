"""Smoothing of the inputs of int8 products: "SmoothQuant" (Xiao et al., 2022).

For encoders and causal language models.

A few channels after a layer norm can be many times larger than the others. A row has one scale, so
they leave few levels to the other channels. Smoothing multiplies each channel by a factor before
quantization, and divides the column of the weight by it. The product stays the same. Only the
layers that read the output of a norm are smoothed. In language models, all linear layers of the
decoder are, since their other inputs have channels that differ as much.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from attendant_export.graphs.builder import Array
from attendant_export.graphs.quantization import SMOOTHING
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.encoder import Encoder

STRENGTH = 0.6
"""The part of a channel's range that moves to the weight; 0 moves nothing."""
SMALLEST_RANGE = 1e-2
"""Lower bound of the range of a channel, as a part of the largest range. A channel that was quiet
in all texts may be loud in another one."""
AFTER_NORMS = ("query_key_value", "feed_forward.0")
"""Ends of the names of linear layers that read the output of a norm."""
OTHERS = ("self_attention.output", "feed_forward.2")
"""Ends of the names of the other linear layers."""

Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]


@torch.inference_mode()
def input_ranges(
    model: Encoder | CausalLanguageModel, texts: Iterable[list[int]]
) -> dict[str, Array]:
    """The largest absolute value of each input channel of the layers to smooth, by name.

    ``texts`` are token ids.
    """
    ranges: dict[str, Tensor] = {}

    def watch(name: str) -> Hook:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].abs().flatten(0, -2).amax(0)
            ranges[name] = torch.maximum(ranges.get(name, largest), largest)

        return hook

    is_encoder = isinstance(model, Encoder)
    stack: nn.Module = model.encoder if isinstance(model, Encoder) else model.decoder
    ends = AFTER_NORMS if is_encoder else (*AFTER_NORMS, *OTHERS)
    handles = [
        module.register_forward_pre_hook(watch(f"{'encoder' if is_encoder else 'decoder'}.{name}"))
        for name, module in stack.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(ends)
    ]
    try:
        for token_ids in texts:
            model(torch.tensor([token_ids]))
    finally:
        for handle in handles:
            handle.remove()
    return {name: largest.float().numpy() for name, largest in ranges.items()}


def smoothing_factors(
    ranges: Mapping[str, Array], parameters: Mapping[str, Array]
) -> dict[str, Array]:
    """The factors (inputs) of the inputs of linear layers with ``ranges``, by parameter name."""
    return {
        name + SMOOTHING: _factors(largest, parameters[f"{name}.weight"])
        for name, largest in ranges.items()
    }


def _factors(inputs: Array, weight: Array) -> Array:
    """The factors of ``inputs``, the ranges of the channels of a weight (outputs, inputs)."""
    columns = np.abs(weight).max(axis=0)
    inputs, columns = (np.maximum(x, SMALLEST_RANGE * x.max()) for x in (inputs, columns))
    if not (inputs.all() and columns.all()):  # all zeros
        return np.ones(len(inputs), np.float32)
    factors: Array = columns ** (1 - STRENGTH) / inputs**STRENGTH
    return factors.astype(np.float32)
