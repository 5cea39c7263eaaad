"""MarianMT checkpoints, such as OPUS-MT, as ``transformers`` writes them."""

from attendant.v1.architecture_pb2 import POSITION_KIND_SINUSOIDAL_HALVED, Positions

from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.encoder_decoder import Form, load_translator, read_architecture
from attendant_export.importers.generation import read_generation
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.marian_tokenizer import read_marian_tokenizers

FORM = Form(
    positions=Positions(kind=POSITION_KIND_SINUSOIDAL_HALVED),
    norms_first=False,
    norms_embeddings=False,
)


def read_marian(checkpoint: Checkpoint) -> ImportedTranslator:
    """The model of a MarianMT checkpoint with its tokenizers; raises CheckpointError."""
    checkpoint.config.require(
        # Fields of earlier versions, for variants that no checkpoint has.
        normalize_before=False,
        normalize_embedding=False,
        add_final_layer_norm=False,
        add_bias_logits=False,
        static_position_embeddings=True,
    )
    architecture = read_architecture(checkpoint.config, checkpoint.weights, FORM)
    generation = read_generation(checkpoint)
    tokenizers = read_marian_tokenizers(checkpoint, architecture)
    return load_translator("marian", checkpoint, architecture, tokenizers, generation)
