"""Encoders, such as BERT (Devlin et al., 2019), with a masked-language-model head and pooling.

Static embeddings are encoders without layers.

Depends on tensors only, not on tokenizers, files or training.
"""

from typing import cast

import torch
from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor, nn

from attendant_export.models.classification import ClassificationHead, check_classification
from attendant_export.models.embeddings import SOURCE, Embeddings
from attendant_export.models.head import Head
from attendant_export.models.norm import final_norm
from attendant_export.models.relative_positions import relative_positions
from attendant_export.models.sparse_vectors import check_sparse_vectors, sparse_vectors
from attendant_export.models.special_tokens import EncoderTokens
from attendant_export.models.stack import Stack, check_encoder
from attendant_export.models.text_vectors import DenseLayers, Pooling, pool, poolings_of
from attendant_export.models.token_vectors import token_dense, token_vectors
from attendant_export.models.unsupported import check_at_least_one


class Encoder(nn.Module):
    """The model of an architecture without a decoder."""

    embedding: nn.Embedding
    """The token embedding table."""

    def __init__(
        self,
        architecture: Architecture,
        tokens: EncoderTokens | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Raises ValueError that names an unsupported field of the architecture."""
        super().__init__()
        _check(architecture)
        self.architecture = architecture
        self.tokens = tokens or EncoderTokens()
        part, width = architecture.encoder, architecture.d_model
        self.dropout = nn.Dropout(dropout)
        self.embed = Embeddings(architecture.source_embeddings, width, part, self.dropout)
        self.embed.add_to(self, SOURCE)
        self.encoder = Stack(part, width, dropout)
        self.encoder_norm = final_norm(part, width)
        self.relative_positions = relative_positions(part)
        self.poolings = poolings_of(architecture)
        self.dense = DenseLayers(architecture.text_vectors, width)
        if architecture.HasField("head"):
            scored = architecture.source_embeddings
            self.mask_head = Head(architecture.head, width, scored, part)
        if architecture.HasField("classification_head"):
            part_of_head = architecture.classification_head
            self.classifier = ClassificationHead(part_of_head, architecture, dropout)
        if architecture.HasField("token_vectors"):
            self.token_dense = token_dense(architecture)

    def begin_as_averages(self) -> None:
        """Initialize every layer of a pre-norm model to the identity.

        Sentence embeddings then start as the averages of token embeddings.
        """
        for layer in self.encoder.layers:
            nn.init.zeros_(layer.self_attention.output.weight)
            nn.init.zeros_(cast(nn.Linear, layer.feed_forward[-1]).weight)

    def real_tokens(self, token_ids: Tensor) -> Tensor:
        """True where ``token_ids`` (batch, length) is not padding.

        If the padding token also ends texts, the first one of a text is its end.
        """
        is_padding = token_ids == self.tokens.pad_id
        if self.tokens.pad_id == self.tokens.sep_id:
            is_padding &= is_padding.cumsum(dim=1) > 1
        return ~is_padding

    def hidden_states(
        self,
        token_ids: Tensor,
        token_types: Tensor | None = None,
        num_layers: int | None = None,
        attended_lengths: Tensor | None = None,
    ) -> list[Tensor]:
        """The embeddings and each layer's output, num_layers + 1 of (batch, length, d_model).

        ``token_ids`` (batch, length) are right-padded with ``pad_id``; ``token_types``, of the same
        shape, default to 0. ``num_layers`` limits the computation to the first layers; 0 computes
        the embeddings only. ``attended_lengths`` (batch) are the numbers of tokens that are
        attended to; by default, all but padding. States at padding are undefined.
        """
        is_attended = self.real_tokens(token_ids)
        if attended_lengths is not None:
            positions = torch.arange(token_ids.shape[1], device=token_ids.device)
            is_attended = positions < attended_lengths[:, None]
        mask = is_attended[:, None, None, :]  # (batch, 1, 1, length)
        relative = self.relative_positions
        bias = None if relative is None else relative.bias(token_ids.shape[1])
        states = [self.embed(token_ids, token_types=token_types)]
        for layer in self.encoder.layers[:num_layers]:
            states.append(layer(states[-1], mask, bias=bias)[0])
        states[-1] = self.encoder_norm(states[-1])
        return states

    def forward(self, token_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """The last hidden state (batch, length, d_model)."""
        return self.hidden_states(token_ids, token_types)[-1]

    def pooled(
        self, token_ids: Tensor, pooling: Pooling = "mean", num_layers: int | None = None
    ) -> Tensor:
        """Sentence embeddings (batch, dimension) of ``token_ids`` (batch, length).

        ``num_layers`` is that of `hidden_states`.
        """
        hidden = self.hidden_states(token_ids, num_layers=num_layers)[-1]
        return self.vectors(hidden, token_ids, self.real_tokens(token_ids), pooling)

    def vectors(
        self,
        hidden: Tensor,
        token_ids: Tensor,
        mask: Tensor,
        pooling: Pooling,
        num_prompt_tokens: int = 0,
    ) -> Tensor:
        """Sentence embeddings (batch, dimension) from last hidden states (batch, length, d_model).

        ``token_ids`` are (batch, length). The other parameters are those of `pool`.
        """
        part, is_excluded = self.architecture.text_vectors, None
        if part.HasField("excluded_token_id"):
            is_excluded = token_ids == part.excluded_token_id
        pooled = pool(hidden, mask, pooling, num_prompt_tokens, is_excluded)
        return cast(Tensor, self.dense(pooled))

    def label_scores(self, token_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Scores of the labels (batch, num_labels) of ``token_ids`` (batch, length)."""
        hidden = self(token_ids, token_types)
        return cast(Tensor, self.classifier(hidden, self.real_tokens(token_ids)))

    def token_vectors(self, hidden: Tensor) -> Tensor:
        """Vectors for late interaction (batch, length, dimension) of last hidden states."""
        return token_vectors(self.token_dense, hidden)

    def sparse_vectors(self, token_ids: Tensor) -> Tensor:
        """Weights of the tokens of the vocabulary (batch, vocab) of ``token_ids``."""
        scores, mask = self.mask_logits(self(token_ids)), self.real_tokens(token_ids)
        return sparse_vectors(self.architecture.sparse_vectors, scores, mask)

    def mask_logits(self, hidden_rows: Tensor) -> Tensor:
        """Vocabulary scores of last hidden states: (..., d_model) to (..., vocab_size)."""
        return cast(Tensor, self.mask_head(hidden_rows, self.embedding.weight))


def _check(architecture: Architecture) -> None:
    check_at_least_one(architecture, "d_model")
    for name in ("source_embeddings", "encoder"):
        if not architecture.HasField(name):
            raise ValueError(f"Architecture.{name}: missing, and an encoder needs it")
    if architecture.HasField("decoder"):
        raise ValueError("Architecture.decoder: is not for an encoder")
    check_classification(architecture)
    check_sparse_vectors(architecture)
    check_encoder(architecture.encoder)
    for group in architecture.encoder.groups:
        for name in ("recurrent", "convolution", "mixture_of_experts"):
            if group.HasField(name):  # type: ignore[arg-type]
                raise ValueError(f"LayerGroup.{name}: is not for an encoder without a decoder")
