"""The encoder that the training of a classification head starts from."""

from dataclasses import dataclass
from pathlib import Path

from attendant.v1.architecture_pb2 import ACTIVATION_TANH, Architecture, ClassificationHead, Dense
from attendant.v1.bundle_pb2 import MODEL_KIND_EMBEDDING
from attendant.v1.embedding_pb2 import POOLING_CLS, POOLING_MEAN
from attendant.v1.text_pb2 import TEXT_NORMALIZATION_STANDARD, TextNormalization
from torch import Tensor

from attendant_export.bundle.manifest import MANIFEST
from attendant_export.bundle.parameters import read_parameters
from attendant_export.bundle.upgrade import read_upgraded
from attendant_export.models.embeddings import longest_text
from attendant_export.models.encoder import Encoder
from attendant_export.models.special_tokens import EncoderTokens
from attendant_export.runs import checkpoint
from attendant_export.runs.config import read_config
from attendant_export.runs.records import read_run_record

HEAD = "classifier."
"""What the names of the parameters of a head begin with."""
HEADS = ("mask_head.", "dense.", "token_dense.", HEAD)
"""What the names of the parameters begin with that the new model does not take over."""
POOLINGS = {"mean": POOLING_MEAN, "cls": POOLING_CLS}
MAX_TOKENS = 256
"""Limit of tokens of a text if the encoder states none."""


@dataclass(frozen=True, slots=True)
class EncoderStart:
    """The encoder that a training starts from."""

    folder: Path
    architecture: Architecture
    """Without its heads."""
    tokens: EncoderTokens
    max_tokens: int
    text_normalization: TextNormalization.ValueType

    def load(self, model: Encoder) -> None:
        """Load the weights into ``model``, whose classification head stays as it is.

        Raises BundleError for a damaged bundle, and ValueError for a damaged run.
        """
        own = {name: each for name, each in model.state_dict().items() if name.startswith(HEAD)}
        checkpoint.set_weights(self.folder, self._parameters() | own, model)

    def _parameters(self) -> dict[str, Tensor]:
        if (self.folder / MANIFEST).exists():
            found = read_parameters(self.folder)
        else:
            found = checkpoint.read_weights(checkpoint.find_weights(self.folder))
        return {name: each for name, each in found.items() if not name.startswith(HEADS)}


def read_start(folder: Path) -> EncoderStart:
    """The encoder of a run folder or a bundle. Raises BundleError, and ValueError for others."""
    if (folder / MANIFEST).exists():
        manifest, _ = read_upgraded(folder)
        if manifest.kind != MODEL_KIND_EMBEDDING:
            raise ValueError(f"--init-from {folder}: is not an embedding model")
        tokens = manifest.special_tokens
        ids = {
            name: getattr(tokens, name) if tokens.HasField(name) else None
            for name in ("cls_id", "sep_id", "mask_id")
        }
        limits = (manifest.limits.max_tokens, manifest.text_normalization)
        network = encoder_alone(manifest.architecture)
        return EncoderStart(folder, network, EncoderTokens(tokens.pad_id, **ids), *limits)
    config = read_config(folder)
    if not isinstance(config.tokens, EncoderTokens) or not config.architecture.encoder.groups:
        raise ValueError(f"--init-from {folder}: is not the run of an encoder")
    network = encoder_alone(config.architecture)
    stated = read_run_record(folder).max_tokens
    max_tokens = longest_text(network, stated or MAX_TOKENS)
    return EncoderStart(folder, network, config.tokens, max_tokens, TEXT_NORMALIZATION_STANDARD)


def encoder_alone(architecture: Architecture) -> Architecture:
    """An encoder without heads, and without what makes vectors of its hidden states."""
    network = Architecture()
    network.CopyFrom(architecture)
    for name in ("head", "text_vectors", "token_vectors", "sparse_vectors", "classification_head"):
        network.ClearField(name)
    return network


def with_head(start: EncoderStart, num_labels: int, pooling: str) -> Architecture:
    """The encoder with a new head. Raises ValueError for a pooling that it cannot have."""
    if pooling == "cls" and start.tokens.cls_id is None:
        raise ValueError(f"--pooling cls: the model in {start.folder} has no CLS token")
    network, width = Architecture(), start.architecture.d_model
    network.CopyFrom(start.architecture)
    network.classification_head.CopyFrom(
        ClassificationHead(
            num_labels=num_labels,
            pooling=POOLINGS[pooling],
            transform=Dense(d_output=width, has_bias=True, activation=ACTIVATION_TANH),
        )
    )
    return network
