"""Writes answers with attention weights as messages."""

from typing import Protocol

import numpy as np
from attendant.v1 import attention_pb2, embedding_pb2, text_pb2
from numpy.typing import NDArray

from attendant_server.application.attention import AttentionAnswer
from attendant_server.grpc.services.messages import timings, tokens


class _LayerWeights(Protocol):
    @property
    def weights(self) -> NDArray[np.float32]: ...
    @property
    def num_heads(self) -> tuple[int, ...]: ...


def attention_response(answer: AttentionAnswer) -> attention_pb2.GetAttentionResponse:
    """The answer to GetAttention."""
    attention = answer.attention
    return attention_pb2.GetAttentionResponse(
        model=answer.model,
        target=answer.target,
        source_tokens=tokens(answer.source_tokens),
        target_tokens=tokens(answer.target_tokens),
        decoder_tokens=tokens(answer.decoder_tokens),
        encoder=_weights(attention.encoder),
        decoder=_weights(attention.decoder),
        cross=_weights(attention.cross),
        token_counts=text_pb2.TokenCounts(num_input_tokens=answer.num_input_tokens),
        timings=timings(answer.phases),
    )


def _weights(kind: _LayerWeights | None) -> attention_pb2.AttentionWeights | None:
    if kind is None:
        return None
    tensor = embedding_pb2.Tensor(
        data=kind.weights.astype("<f4").tobytes(),
        shape=kind.weights.shape,
        dtype=embedding_pb2.DATA_TYPE_FLOAT32,
    )
    return attention_pb2.AttentionWeights(weights=tensor, num_heads=kind.num_heads)
