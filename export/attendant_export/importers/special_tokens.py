"""Special tokens of a checkpoint's tokenizer."""

from tokenizers import Tokenizer

from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer
from attendant_export.importers.albert_tokenizer import (
    is_albert_sentencepiece,
    read_albert_tokenizer,
)
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.stated_tokens import stated_token
from attendant_export.importers.vocabulary_files import (
    has_vocabulary_files,
    read_vocabulary_files,
)
from attendant_export.models.special_tokens import EncoderTokens

ENCODER_TOKENS = {"pad_id": "pad", "cls_id": "cls", "sep_id": "sep", "mask_id": "mask"}
_BERT = {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ROBERTA = {"pad": "<pad>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
DEFAULT_TOKENS = {
    "albert": _BERT | {"pad": "<pad>"},
    **dict.fromkeys(("bert", "distilbert", "electra"), _BERT),
    **dict.fromkeys(("camembert", "mpnet", "roberta", "xlm-roberta"), _ROBERTA),
    **dict.fromkeys(("mt5", "t5"), {"pad": "<pad>"}),
}
"""Tokens by ``model_type`` that a checkpoint need not state, as in the original."""


def read_tokenizer(checkpoint: Checkpoint, file: str = TOKENIZER) -> Tokenizer:
    """The tokenizer of ``tokenizer.json`` or of another file; raises CheckpointError.

    It neither pads nor truncates. The vocabulary files of a family, or a SentencePiece model of
    ALBERT, stand for a missing ``tokenizer.json``.
    """
    if file == TOKENIZER and is_albert_sentencepiece(checkpoint):
        return read_albert_tokenizer(checkpoint)
    if file == TOKENIZER and has_vocabulary_files(checkpoint):
        return read_vocabulary_files(checkpoint)
    try:
        tokenizer = load_tokenizer(checkpoint.path(file))
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encoder_tokens(checkpoint: Checkpoint) -> EncoderTokens:
    """The special tokens of an encoder; raises CheckpointError that names a missing one."""
    ids = {field: special_token_id(checkpoint, name) for field, name in ENCODER_TOKENS.items()}
    return EncoderTokens(**ids)


def surrounding_tokens(checkpoint: Checkpoint) -> EncoderTokens:
    """The special tokens of a model without a mask token; raises CheckpointError.

    The first and the last token of a text are those that the tokenizer adds, often none.
    """
    before, after = added_tokens(checkpoint, read_tokenizer(checkpoint))
    if len(before) > 1 or len(after) > 1:
        raise CheckpointError(
            f"{checkpoint.folder}: {TOKENIZER} puts {len(before)} special tokens before a text and "
            f"{len(after)} after it; supported: at most one each"
        )
    return EncoderTokens(
        pad_id=special_token_id(checkpoint, "pad"),
        cls_id=before[0] if before else None,
        sep_id=after[0] if after else None,
        mask_id=None,
    )


def added_tokens(checkpoint: Checkpoint, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text; raises CheckpointError if a text has no token."""
    encoding = tokenizer.encode("a")
    inner = [i for i, is_special in enumerate(encoding.special_tokens_mask) if not is_special]
    if not inner:
        raise CheckpointError(f"{checkpoint.folder / TOKENIZER} makes no token of the text a")
    return encoding.ids[: inner[0]], encoding.ids[inner[-1] + 1 :]


def special_token_id(checkpoint: Checkpoint, name: str) -> int:
    """The id of the token that the checkpoint calls ``<name>_token``."""
    defaults = DEFAULT_TOKENS.get(checkpoint.config.get("model_type"), {})
    token = stated_token(checkpoint, f"{name}_token", defaults.get(name))
    token_id = read_tokenizer(checkpoint).token_to_id(token)
    if token_id is None:
        raise CheckpointError(f"{checkpoint.folder}: {TOKENIZER} has no token {token}")
    return token_id
