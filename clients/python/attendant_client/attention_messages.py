"""Builds the request for attention weights and parses its answer. Knows no channel."""

from typing import Any

import grpc
import numpy as np
from attendant.v1 import attention_pb2
from numpy.typing import NDArray

from attendant_client.attention_results import Attention
from attendant_client.calls import Call, sendable
from attendant_client.embedding_parsing import array
from attendant_client.errors import TextError, bad_answer
from attendant_client.messages import NORMALIZATIONS, OFFSET_UNITS, chosen
from attendant_client.options import OffsetUnit, TextNormalization
from attendant_client.parsing import call_report, tokens


def get_attention(
    text: str,
    target: str | None,
    *,
    model: str,
    source_language: str,
    target_language: str,
    text_normalization: TextNormalization | None,
    offset_unit: OffsetUnit,
) -> Call[Attention]:
    """Build a GetAttention call. Raises TextError for a text that cannot be sent."""
    (sent, sent_target), faults = sendable([text, target or ""])
    for problem in faults.values():
        raise TextError(problem, grpc.StatusCode.INVALID_ARGUMENT)
    request = attention_pb2.GetAttentionRequest(
        model=model,
        text=sent,
        target=None if target is None else sent_target,
        source_language=source_language,
        target_language=target_language,
        text_normalization=chosen(NORMALIZATIONS, "text_normalization", text_normalization),
        offset_unit=chosen(OFFSET_UNITS, "offset_unit", offset_unit),
    )
    return Call(
        "/attendant.v1.ModelService/GetAttention",
        request,
        attention_pb2.GetAttentionResponse,
        _attention,
    )


def _attention(response: attention_pb2.GetAttentionResponse, request_id: str) -> Attention:
    source, target = tokens(response.source_tokens), tokens(response.target_tokens)
    sizes = {
        "encoder": (len(source), len(source)),
        "decoder": (len(target), len(response.decoder_tokens)),
        "cross": (len(target), len(source)),
    }
    weights: dict[str, Any] = {name: _weights(response, name, sizes[name]) for name in sizes}
    if all(each is None for each in weights.values()):
        raise bad_answer("no attention", request_id)
    return Attention(
        source_tokens=source,
        target=response.target,
        target_tokens=target,
        decoder_tokens=tokens(response.decoder_tokens),
        **weights,
        num_heads={name: tuple(getattr(response, name).num_heads) for name in sizes},
        call=call_report(response, request_id),
    )


def _weights(response: Any, name: str, size: tuple[int, int]) -> NDArray[np.float32] | None:
    """One kind of attention, whose last dimensions must be ``size``; None if it is absent."""
    if not response.HasField(name):
        return None
    kind: attention_pb2.AttentionWeights = getattr(response, name)
    found, _ = array(kind.weights)
    if found.ndim != 4 or found.shape[2:] != size or len(found) != len(kind.num_heads):
        raise bad_answer(f"attention of shape {found.shape} between {size} tokens")
    return found
