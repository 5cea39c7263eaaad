"""Imported models with their tokenizers and defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import (
    Classification,
    DecodingDefaults,
    EmbeddingDefaults,
    LateInteraction,
)
from attendant.v1.embedding_pb2 import (
    POOLING_LAST,
    POOLING_MEAN,
    POOLING_MEAN_SQRT_LENGTH,
    POOLING_WEIGHTED_MEAN,
)
from attendant_manifest import part_rules
from tokenizers import Tokenizer

from attendant_export.data.shortlists import Shortlists
from attendant_export.importers.checkpoint import Checkpoint, Config
from attendant_export.importers.classification import (
    has_classification_head,
    head_weights,
    read_classification,
    read_head,
)
from attendant_export.importers.colbert import HF_PROJECTION, has_projection
from attendant_export.importers.masked_head import read_head_as_stored
from attendant_export.importers.special_tokens import encoder_tokens, read_tokenizer
from attendant_export.importers.token_types import without_token_types
from attendant_export.importers.tokenizer_checks import (
    check_token_types,
    check_tokenizer,
    gives_token_types,
    stated_max_tokens,
)
from attendant_export.importers.translation_tokenizers import TranslationTokenizers
from attendant_export.importers.weight_names import Weights, WeightTable
from attendant_export.models.embeddings import max_text_tokens
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import EncoderTokens

ADDITIONAL_POOLINGS = POOLING_LAST, POOLING_WEIGHTED_MEAN, POOLING_MEAN_SQRT_LENGTH


@dataclass(frozen=True, slots=True)
class ImportedEncoder:
    """An embedding model of a checkpoint."""

    family: str
    """Name of the family, such as ``bert``."""
    model: Encoder
    tokenizer: Tokenizer
    max_tokens: int
    """Limit of tokens of a text, special tokens included."""
    defaults: EmbeddingDefaults = field(
        default_factory=lambda: EmbeddingDefaults(pooling=POOLING_MEAN)
    )
    classification: Classification | None = None
    """The labels of a model with a classification head."""
    late_interaction: LateInteraction | None = None
    """The queries and documents of a model of late interaction."""
    max_network_tokens: int = part_rules.MAX_TOKENS
    """Limit of tokens that the network allows, whatever the tokenizer states."""

    def with_stated_limit(self, config: Config, name: str) -> Self:
        """The model with the limit of tokens of a field, which the tokenizer's does not lower.

        Without the field, the limit stays. Raises CheckpointError for another value.
        """
        if name not in config:
            return self
        return replace(self, max_tokens=min(self.max_network_tokens, config.integer(name)))


@dataclass(frozen=True, slots=True)
class ImportedTranslator:
    """A translation model of a checkpoint."""

    family: str
    model: EncoderDecoder
    tokenizers: TranslationTokenizers
    decoding: DecodingDefaults
    max_tokens: int
    """Limit of tokens of a source and of a target, EOS included."""
    shortlists: Shortlists | None = None
    input_scales: Mapping[str, float] = field(default_factory=dict)
    """The fixed scales of the inputs of int8 products, by the names of the linear layers of graphs.
    The inputs of other layers have a scale for each row."""


def load_encoder(
    family: str,
    architecture: Architecture,
    checkpoint: Checkpoint,
    weights: WeightTable,
    longest: int | None = None,
    tokens: EncoderTokens | None = None,
) -> ImportedEncoder:
    """The encoder of ``architecture`` with the checkpoint's weights; raises CheckpointError.

    ``longest`` limits the tokens of a text if there is no table of positions, which limits them.
    ``tokens`` are those that the tokenizer's configuration states, by default.
    """
    architecture.text_vectors.additional_poolings.extend(ADDITIONAL_POOLINGS)
    classification = None
    if has_classification_head(checkpoint):
        classification = read_classification(checkpoint.config)
        head = read_head(checkpoint.config, architecture.d_model)
        architecture.classification_head.CopyFrom(head)
        weights = replace(weights, names={**weights.names, **head_weights(family)})
    if architecture.HasField("head"):
        weights = read_head_as_stored(architecture, weights, checkpoint)
    if has_projection(checkpoint):  # read later, with its settings
        weights = replace(weights, ignored=(*weights.ignored, rf"{HF_PROJECTION}\.weight"))
    tokens = tokens or encoder_tokens(checkpoint)
    check_tokenizer(checkpoint, tokens, architecture.source_embeddings.vocab_size)
    check_token_types(checkpoint, architecture)
    source: Weights = checkpoint.weights
    if classification is not None and not gives_token_types(checkpoint):
        source = without_token_types(source, architecture)
    with torch.device("meta"):  # no memory for sizes that the weights may not have
        model = Encoder(architecture, tokens).eval()
    weights.load(model, source)
    positions = max_text_tokens(architecture.source_embeddings.positions)
    limits = (positions, longest, part_rules.MAX_TOKENS)
    most = min(each for each in limits if each is not None)
    return ImportedEncoder(
        *(family, model, read_tokenizer(checkpoint)),
        max_tokens=min(most, stated_max_tokens(checkpoint) or most),
        classification=classification,
        max_network_tokens=most,
    )
