"""Token ids of SentencePiece models in checkpoints that were trained with fairseq."""

from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.sentencepiece_model import SentencePieceModel

SENTENCEPIECE = "sentencepiece.bpe.model"
FIRST_IDS = ("<s>", "<pad>", "</s>", "<unk>")
"""The tokens that fairseq puts before the pieces of a model."""
SENTENCEPIECE_SPECIAL = ("<unk>", "<s>", "</s>")
MASK = "<mask>"


def shifted_pieces(model: SentencePieceModel) -> tuple[str, ...]:
    """The pieces of the model after the first tokens of fairseq."""
    first = len(SENTENCEPIECE_SPECIAL)
    if model.pieces[:first] != SENTENCEPIECE_SPECIAL or model.pieces[first:] != tuple(model.scores):
        raise CheckpointError(
            f"{model.path}: its pieces are not {', '.join(SENTENCEPIECE_SPECIAL)} and then normal "
            "ones, which is not supported"
        )
    return (*FIRST_IDS, *model.pieces[first:])
