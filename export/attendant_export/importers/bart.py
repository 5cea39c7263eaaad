"""BART checkpoints (Lewis et al., 2019)."""

from attendant.v1.architecture_pb2 import POSITION_KIND_LEARNED, Architecture, Positions
from attendant.v1.bundle_pb2 import SpecialTokens
from tokenizers import Tokenizer

from attendant_export.data.tokenizer import TOKENIZER
from attendant_export.importers.byte_level_bpe import read_byte_level_bpe
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.encoder_decoder import Form, load_translator, read_architecture
from attendant_export.importers.fairseq_tokenizer import end_with
from attendant_export.importers.generation import read_generation
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.importers.stated_tokens import check_tokenizer_class, stated_token
from attendant_export.importers.tokenizer_checks import largest_id, stated_max_tokens
from attendant_export.importers.translation_tokenizers import TranslationTokenizers

POSITION_OFFSET = 2
"""The row of the first position."""
FORM = Form(
    positions=Positions(kind=POSITION_KIND_LEARNED, offset=POSITION_OFFSET),
    norms_first=False,
    norms_embeddings=True,
)
SPECIAL = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
DEFAULT_MAX_TOKENS = 1024


def read_bart(checkpoint: Checkpoint) -> ImportedTranslator:
    """The model of a BART checkpoint with its tokenizer; raises CheckpointError."""
    config = checkpoint.config
    config.require(
        # Fields of earlier versions, for variants that no checkpoint has.
        normalize_before=False,
        normalize_embedding=True,
        add_final_layer_norm=False,
        add_bias_logits=False,
        static_position_embeddings=False,
        extra_pos_embeddings=POSITION_OFFSET,
    )
    architecture = read_architecture(config, checkpoint.weights, FORM)
    generation = read_generation(checkpoint)
    tokenizers = _read_tokenizers(checkpoint, architecture, generation.forced_token_ids)
    return load_translator("bart", checkpoint, architecture, tokenizers, generation)


def _read_tokenizers(
    checkpoint: Checkpoint, architecture: Architecture, forced_token_ids: tuple[int, ...]
) -> TranslationTokenizers:
    """The tokenizers: texts are between BOS and EOS, unless BOS is forced before a target."""
    special = {
        name: stated_token(checkpoint, f"{name}_token", default)
        for name, default in SPECIAL.items()
    }
    source, target = (_read_tokenizer(checkpoint, list(special.values())) for _ in range(2))
    ids = {name: source.token_to_id(text) for name, text in special.items()}
    if (largest := largest_id(source)) >= (size := architecture.source_embeddings.vocab_size):
        raise CheckpointError(
            f"{checkpoint.folder}: token id {largest} exceeds the vocab_size {size}"
        )
    end_with(source, special["eos"], special["bos"])
    end_with(target, special["eos"], "" if forced_token_ids else special["bos"])
    tokens = SpecialTokens(pad_id=ids["pad"], eos_id=ids["eos"], unk_id=ids["unk"])
    return TranslationTokenizers(
        source=source,
        target=target,
        source_tokens=tokens,
        target_tokens=tokens,
        max_tokens=stated_max_tokens(checkpoint) or DEFAULT_MAX_TOKENS,
    )


def _read_tokenizer(checkpoint: Checkpoint, special: list[str]) -> Tokenizer:
    if checkpoint.has(TOKENIZER):
        tokenizer = read_tokenizer(checkpoint)
    else:
        check_tokenizer_class(checkpoint, "BartTokenizer", "RobertaTokenizer")
        tokenizer = read_byte_level_bpe(checkpoint)
    for text in special:
        if tokenizer.token_to_id(text) is None:
            raise CheckpointError(f"{checkpoint.folder}: the special token {text} has no id")
    tokenizer.add_special_tokens(special)
    return tokenizer
