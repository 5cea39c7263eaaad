"""Fixed scales of the inputs of int8 products, measured on sentence pairs.

A fixed scale saves six operators around each product (docs/decisions/0093). Inputs beyond the range
of a scale are cut off, so the range must be that of typical texts.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attendant_export.graphs.parameters import KEYS_VALUES
from attendant_export.graphs.quantization import SMALLEST_SCALE
from attendant_export.models.attention import MultiHeadAttention
from attendant_export.models.encoder_decoder import EncoderDecoder

QUANTILE = 0.999
"""Share of the tokens whose inputs lie within the range of a layer's scale."""
NUM_MEASURED_PAIRS = 500
"""Pairs to measure scales on; more hardly change them."""


@torch.inference_mode()
def measure_input_scales(
    model: EncoderDecoder, pairs: Iterable[tuple[list[int], list[int]]]
) -> dict[str, float]:
    """The scale of the inputs of each linear layer of the graphs of ``model``, by its name.

    ``pairs`` are the tokens that the encoder and the decoder read. Vocabulary tables have no scale.
    """
    watched = _Inputs(_names_of_weights(model))
    with watched:
        for source, target in pairs:
            model(torch.tensor([source]), torch.tensor([target]))
    return {name: _scale(np.concatenate(each)) for name, each in watched.largest.items()}


class _Inputs(TorchFunctionMode):
    """Collects the largest absolute value of each token's inputs of linear layers."""

    def __init__(self, names: dict[int, str]) -> None:
        """``names`` are those of the layers by the addresses of their weights."""
        super().__init__()
        self._names = names
        self.largest: dict[str, list[np.ndarray[Any, Any]]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a function of PyTorch, and look at its inputs if it is a linear layer."""
        if func is functional.linear and (name := self._names.get(args[1].data_ptr())):
            largest: Tensor = args[0].abs().flatten(0, -2).amax(-1)
            self.largest.setdefault(name, []).append(largest.float().numpy())
        return func(*args, **(kwargs or {}))


def _names_of_weights(model: EncoderDecoder) -> dict[int, str]:
    """The names that graphs give the linear layers, by the addresses of the model's weights."""
    names = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or not name.startswith(("encoder.", "decoder.")):
            continue
        parent, _, last = name.rpartition(".")
        if parent.endswith(".cross_attention") and last == "query_key_value":
            attention = model.get_submodule(parent)
            assert isinstance(attention, MultiHeadAttention)
            names[module.weight.data_ptr()] = f"{parent}.query"
            if KEYS_VALUES not in names.values():  # all layers read the same memory
                names[module.weight[attention.inner :].data_ptr()] = KEYS_VALUES
        elif parent.endswith(".ssru"):
            names[module.weight.data_ptr()] = f"{parent}.gates"
        else:
            names[module.weight.data_ptr()] = name
    return names


def _scale(largest: np.ndarray[Any, Any]) -> float:
    """The scale for tokens with these largest absolute values; never 0."""
    return max(float(np.quantile(largest, QUANTILE)) / 127, SMALLEST_SCALE)
