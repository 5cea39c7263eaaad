"""Sentence embeddings of a model in training."""

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.batches import encode_whole, group_by_tokens, pad
from attendant_export.models.encoder import Encoder
from attendant_export.models.text_vectors import Pooling

MAX_VALID_BATCH_TOKENS = 4096
"""Padded tokens of a batch in validation."""


@torch.inference_mode()
def embed_texts(
    model: Encoder,
    tokenizer: Tokenizer,
    texts: list[str],
    max_tokens: int,
    pooling: Pooling = "mean",
    num_layers: int | None = None,
) -> Tensor:
    """Sentence embeddings (texts, d_model) in the order of ``texts``, not normalized.

    Texts are truncated to ``max_tokens``. See `Encoder.hidden_states` for ``num_layers``.
    """
    sequences = encode_whole(texts, tokenizer, max_tokens)
    lengths = [len(ids) for ids in sequences]
    device = model.embedding.weight.device
    embeddings = torch.empty(len(texts), model.architecture.d_model, device=device)
    for indices in group_by_tokens(lengths, MAX_VALID_BATCH_TOKENS, np.argsort(lengths)):
        token_ids = pad([sequences[i] for i in indices], model.tokens.pad_id)
        embeddings[indices] = model.pooled(token_ids.to(device), pooling, num_layers)
    return embeddings
