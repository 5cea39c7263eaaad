"""Causal language models: a decoder without an encoder, such as GPT-2 and Llama.

Depends on tensors only, not on tokenizers, files or training.
"""

from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor, nn

from attendant_export.models.decoder import Decoder, DecodingStart, check_decoder
from attendant_export.models.embeddings import Embeddings, target_names
from attendant_export.models.head import Head
from attendant_export.models.norm import final_norm
from attendant_export.models.relative_positions import relative_positions
from attendant_export.models.special_tokens import LanguageModelTokens
from attendant_export.models.stack import Stack
from attendant_export.models.unsupported import check_at_least_one, unsupported

_NEEDED = ("target_embeddings", "decoder", "head")
_NOT_SUPPORTED = (
    *("cross_attention", "alignment_attention", "unfolding"),
    *("ssru", "recurrent", "convolution", "mixture_of_experts"),
)


class CausalLanguageModel(Decoder):
    """The model of an architecture with a decoder and without an encoder."""

    def __init__(
        self,
        architecture: Architecture,
        tokens: LanguageModelTokens | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Raises ValueError that names an unsupported field of the architecture."""
        super().__init__()
        _check(architecture)
        self.architecture = architecture
        self.tokens = tokens or LanguageModelTokens()
        part, width = architecture.decoder, architecture.d_model
        self.dropout = nn.Dropout(dropout)
        self._target = Embeddings(architecture.target_embeddings, width, part, self.dropout)
        self._target.add_to(self, target_names(shares_embeddings=False))
        self.decoder = Stack(part, width, dropout)
        self.decoder_norm = final_norm(part, width)
        self.decoder_relative_positions = relative_positions(part)
        self.head = Head(architecture.head, width, architecture.target_embeddings, part)

    def start(self, source: Tensor) -> DecodingStart:
        """Read all but the last token of ``source`` (batch, source), to begin its continuation.

        The last token is the decoder's first input. The texts have equal lengths of at least 1.
        """
        past = None
        if source.shape[1] > 1:
            _, past = self.decode(source[:, :-1])
        return DecodingStart(source[:, -1:], past)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Hidden states (batch, length, d_model) of ``token_ids`` (batch, length).

        Padding on the right has no effect on the tokens before it.
        """
        return self.decode(token_ids)[0]


def _check(architecture: Architecture) -> None:
    check_at_least_one(architecture, "d_model")
    for name in _NEEDED:
        if not architecture.HasField(name):  # type: ignore[arg-type]
            raise ValueError(f"Architecture.{name}: missing, and a language model needs it")
    for field, _ in architecture.ListFields():
        if field.name not in ("d_model", *_NEEDED):
            raise ValueError(f"Architecture.{field.name}: is not for a language model")
    if not architecture.decoder.groups:
        raise ValueError("Stack.groups: missing, and a language model needs layers")
    embeddings = architecture.target_embeddings
    if embeddings.d_embedding:
        raise unsupported(embeddings, "d_embedding", "is not supported in a language model")
    check_decoder(architecture.decoder)
    for group in architecture.decoder.groups:
        for name in _NOT_SUPPORTED:
            if group.HasField(name):  # type: ignore[arg-type]
                raise ValueError(f"LayerGroup.{name}: is not for a language model")
