"""Heads of a decoder's attention that are wider than in the checkpoint, for the kernel of steps.

The kernel supports only certain widths of a head. Zeros after the channels of a query and of a key
add nothing to their product, and those after a value are not read by the output projection. A
network with such zeros and the scale of the narrower heads computes the same.
"""

import torch
import torch.nn.functional as F
from attendant.v1.architecture_pb2 import Architecture, Attention
from torch import Tensor

from attendant_export.graphs.attention import HEAD_DIM_MULTIPLE
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.stack import each_layer

PARTS = ("self_attention", "cross_attention")


def with_supported_heads(model: EncoderDecoder) -> EncoderDecoder:
    """The same network with heads of a width that decoder steps support."""
    widened = Architecture()
    widened.CopyFrom(model.architecture)
    for group in widened.decoder.groups:
        _widen(group.self_attention)
        _widen(group.cross_attention)
    if widened == model.architecture:
        return model
    parameters = model.state_dict()
    layers = each_layer(model.architecture.decoder), each_layer(widened.decoder)
    for number, (before, after) in enumerate(zip(*layers, strict=True)):
        for name in PARTS:
            part: Attention = getattr(before, name)
            added = getattr(after, name).head_dim - part.head_dim
            _pad(parameters, f"decoder.{number}.{name}", part, added)
    with torch.device("meta"):
        result = EncoderDecoder(widened, model.tokens).eval()
    result.load_state_dict(parameters, assign=True)
    return result


def _widen(part: Attention) -> None:
    width = -(-part.head_dim // HEAD_DIM_MULTIPLE) * HEAD_DIM_MULTIPLE
    if width != part.head_dim:
        part.scale = part.scale or part.head_dim**-0.5
        part.head_dim = width


def _pad(parameters: dict[str, Tensor], name: str, part: Attention, added: int) -> None:
    """Append ``added`` zeros to each head in the parameters of an attention."""
    weight, bias = f"{name}.query_key_value.weight", f"{name}.query_key_value.bias"
    heads = parameters[weight].unflatten(0, (3 * part.num_heads, part.head_dim))
    parameters[weight] = F.pad(heads, (0, 0, 0, added)).flatten(0, 1)
    if part.has_bias:
        by_head = parameters[bias].unflatten(0, (3 * part.num_heads, part.head_dim))
        parameters[bias] = F.pad(by_head, (0, added)).flatten()
    output = f"{name}.output.weight"
    columns = parameters[output].unflatten(1, (part.num_heads, part.head_dim))
    parameters[output] = F.pad(columns, (0, added)).flatten(1)
