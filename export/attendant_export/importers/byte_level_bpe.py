"""Byte-level BPE in ``vocab.json`` and ``merges.txt``, as BART and RoBERTa have it."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError

VOCABULARY, MERGES = "vocab.json", "merges.txt"


def read_byte_level_bpe(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer, which adds no special tokens; raises CheckpointError."""
    config = checkpoint.tokenizer_config
    config.require(trim_offsets=True, errors="replace")
    adds_space = config.flag("add_prefix_space", default=False)
    paths = [str(checkpoint.path(name)) for name in (VOCABULARY, MERGES)]
    try:
        tokenizer = Tokenizer(models.BPE.from_file(*paths))
    except Exception as error:  # The library raises no narrower class.
        raise CheckpointError(f"{paths[0]}, {paths[1]}: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds_space)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
