"""Static embeddings: encoders without layers, whose vectors of texts are means of a table's rows.

Depends on tensors only, not on tokenizers or files.
"""

import torch
from attendant.v1.architecture_pb2 import Architecture, Embeddings, Stack, TextVectors
from torch import Tensor

from attendant_export.models.encoder import Encoder
from attendant_export.models.special_tokens import EncoderTokens

TABLE = "embedding.weight"
"""The only parameter of the model, unless dense layers follow."""


def static_architecture(
    vocab_size: int, d_model: int, excluded_token_id: int | None = None
) -> Architecture:
    """The architecture of a table (vocab_size, d_model) with the vectors of tokens.

    Means and maxima leave out ``excluded_token_id``, if there is such a token.
    """
    return Architecture(
        d_model=d_model,
        source_embeddings=Embeddings(vocab_size=vocab_size),
        encoder=Stack(),
        text_vectors=TextVectors(excluded_token_id=excluded_token_id),
    )


def static_encoder(table: Tensor, pad_id: int, excluded_token_id: int | None = None) -> Encoder:
    """The model, in evaluation mode, of a ``table`` as in `static_architecture`."""
    architecture = static_architecture(len(table), table.shape[1], excluded_token_id)
    with torch.device("meta"):  # The table takes the place of the parameter.
        model = Encoder(architecture, EncoderTokens(pad_id, None, None, None)).eval()
    model.load_state_dict({TABLE: table}, assign=True)
    return model
