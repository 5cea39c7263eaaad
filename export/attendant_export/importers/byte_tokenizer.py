"""The tokenizer of ByT5 (Xue et al., 2022), whose tokens are bytes. It has no file."""

from itertools import count

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.stated_tokens import stated_token

CLASS = "ByT5Tokenizer"
SPECIAL = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
"""The first tokens. The tokens of bytes follow, and then the extra ids."""
NUM_EXTRA = 125
PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
"""The bytes that byte-level tokenizers write as the character of this number."""


def reads_bytes(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer of a checkpoint is that of ByT5."""
    name: object = checkpoint.tokenizer_class.get("tokenizer_class")
    return name == CLASS


def byte_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer, which adds ``</s>``; raises CheckpointError for other special tokens.

    Also for more tokens than the model has.
    """
    for name, token in SPECIAL.items():
        if (stated := stated_token(checkpoint, f"{name}_token", token)) != token:
            raise CheckpointError(
                f"{checkpoint.folder}: {name}_token is {stated!r}, which is not supported for "
                f"{CLASS}; supported: {token!r}"
            )
    texts = [*SPECIAL.values(), *_characters()]
    ids = {text: i for i, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(ids, [], unk_token=SPECIAL["unk"]))  # merges no bytes
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL.values(), *_extra_tokens(checkpoint, len(texts))])
    eos = SPECIAL["eos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, ids[eos])]
    )
    return tokenizer


def _extra_tokens(checkpoint: Checkpoint, num_before: int) -> list[str]:
    """The tokens after the first ``num_before``; raises CheckpointError if the model lacks them."""
    num_extra = checkpoint.tokenizer_config.integer("extra_ids", default=NUM_EXTRA, minimum=0)
    vocab_size = checkpoint.config.integer("vocab_size")
    if num_before + num_extra > vocab_size:
        raise CheckpointError(
            f"{checkpoint.folder}: vocab_size is {vocab_size}, want at least "
            f"{num_before + num_extra}, for {num_before} bytes and special tokens and "
            f"{num_extra} extra_ids"
        )
    return [f"<extra_id_{i}>" for i in range(num_extra)]


def _characters() -> list[str]:
    """The characters that stand for the bytes in byte-level tokenizers, in order of the bytes."""
    others = count(256)
    return [chr(byte if byte in PRINTABLE else next(others)) for byte in range(256)]
