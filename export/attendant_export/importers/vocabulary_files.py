"""Tokenizers of embedding models whose checkpoints lack a ``tokenizer.json``.

WordPiece in ``vocab.txt``, byte-level BPE in ``vocab.json`` and ``merges.txt``, and the
SentencePiece model of XLM-RoBERTa become the tokenizers that the original makes of these files.
"""

from collections.abc import Callable, Mapping

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from attendant_export.data.tokenizer import TOKENIZER
from attendant_export.importers import byte_level_bpe, fairseq_pieces
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.sentencepiece_model import read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import Vocabulary, sentencepiece_tokenizer
from attendant_export.importers.stated_tokens import check_tokenizer_class, stated_token

WORDPIECE = "vocab.txt"
ADDED_TOKENS = "added_tokens.json"
BERT = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"unk": "<unk>", "pad": "<pad>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
BERT_PAIR, ROBERTA_PAIR = "{cls} $A {sep} $B:1 {sep}:1", "{cls} $A {sep} {sep} $B {sep}"
SURROUND = ("cls", "sep")

TOKENIZER_CLASSES = {
    "bert": ("BertTokenizer",),
    "distilbert": ("DistilBertTokenizer", "BertTokenizer"),
    "electra": ("ElectraTokenizer", "BertTokenizer"),
    "mpnet": ("MPNetTokenizer",),
    "roberta": ("RobertaTokenizer",),
    "xlm-roberta": ("XLMRobertaTokenizer",),
}
"""The classes that read the vocabulary files of a family as they are read here."""

_Read = tuple[Tokenizer, processors.ByteLevel | None]
"""A tokenizer, and the step that leaves spaces out of the offsets of tokens, if it has one."""


def has_vocabulary_files(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer is in the vocabulary files of the checkpoint's family."""
    if checkpoint.has(TOKENIZER):
        return False
    family = _FAMILIES.get(checkpoint.config.get("model_type"))
    return family is not None and checkpoint.has(family[0])


def read_vocabulary_files(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer, whose encodings begin with CLS and end with SEP; raises CheckpointError."""
    family = checkpoint.config.get("model_type")
    check_tokenizer_class(checkpoint, *TOKENIZER_CLASSES[family])
    _, read, defaults, pair = _FAMILIES[family]
    special = {
        name: stated_token(checkpoint, f"{name}_token", default)
        for name, default in defaults.items()
    }
    _check_added_tokens(checkpoint, special)
    tokenizer, trimming = read(checkpoint, special)
    for text in special.values():
        if tokenizer.token_to_id(text) is None:
            raise CheckpointError(f"{checkpoint.folder}: the special token {text} has no id")
    tokenizer.add_special_tokens(
        [
            AddedToken(text, normalized=False, lstrip=name == "mask" and special["cls"] == "<s>")
            for name, text in special.items()
        ]
    )
    template = processors.TemplateProcessing(
        single="{cls} $A {sep}".format(**special),
        pair=pair.format(**special),
        special_tokens=[(special[name], tokenizer.token_to_id(special[name])) for name in SURROUND],
    )
    steps = [template] if trimming is None else [trimming, template]
    tokenizer.post_processor = processors.Sequence(steps)
    return tokenizer


def _check_added_tokens(checkpoint: Checkpoint, special: Mapping[str, str]) -> None:
    """Raise CheckpointError for tokens that texts have and the vocabulary lacks."""
    added = checkpoint.tokenizer_config.get("added_tokens_decoder")
    texts = [
        str(token.get("content"))
        for token in (added.values() if isinstance(added, dict) else ())
        if isinstance(token, dict) and not token.get("special")
    ]
    if checkpoint.has(ADDED_TOKENS):
        texts += checkpoint.json_object(ADDED_TOKENS)
    if others := sorted(set(texts) - set(special.values())):
        raise CheckpointError(
            f"{checkpoint.folder}: the added tokens {', '.join(others)} are not supported without "
            f"{TOKENIZER}"
        )


def _wordpiece(checkpoint: Checkpoint, special: Mapping[str, str]) -> _Read:
    config, path = checkpoint.tokenizer_config, checkpoint.path(WORDPIECE)
    config.require(do_basic_tokenize=True, never_split=None)
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8: {error}") from error
    vocabulary = {line: i for i, line in enumerate(lines)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"]))
    strips = config.get("strip_accents")
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.flag("tokenize_chinese_chars", default=True),
        strip_accents=None if strips is None else config.flag("strip_accents", default=True),
        lowercase=config.flag("do_lower_case", default=True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, None


def _byte_level_bpe(checkpoint: Checkpoint, special: Mapping[str, str]) -> _Read:
    adds_space = checkpoint.tokenizer_config.flag("add_prefix_space", default=False)
    trimming = processors.ByteLevel(add_prefix_space=adds_space, trim_offsets=True)
    return byte_level_bpe.read_byte_level_bpe(checkpoint), trimming


def _sentencepiece(checkpoint: Checkpoint, special: Mapping[str, str]) -> _Read:
    checkpoint.tokenizer_config.require_empty("sp_model_kwargs")
    model = read_sentencepiece(checkpoint.path(fairseq_pieces.SENTENCEPIECE))
    texts = [*fairseq_pieces.shifted_pieces(model), fairseq_pieces.MASK]
    ids = {text: i for i, text in enumerate(texts)}
    vocabulary = Vocabulary(
        ids, special["unk"], special["sep"], special["pad"], has_codes=False, others=["<s>"]
    )
    return sentencepiece_tokenizer(model, vocabulary), None


_Reader = Callable[[Checkpoint, Mapping[str, str]], _Read]
_FAMILIES: Mapping[str, tuple[str, _Reader, Mapping[str, str], str]] = {
    "bert": (WORDPIECE, _wordpiece, BERT, BERT_PAIR),
    "distilbert": (WORDPIECE, _wordpiece, BERT, BERT_PAIR),
    "electra": (WORDPIECE, _wordpiece, BERT, BERT_PAIR),
    "mpnet": (WORDPIECE, _wordpiece, {**ROBERTA, "unk": "[UNK]"}, ROBERTA_PAIR),
    "roberta": (byte_level_bpe.MERGES, _byte_level_bpe, ROBERTA, ROBERTA_PAIR),
    "xlm-roberta": (fairseq_pieces.SENTENCEPIECE, _sentencepiece, ROBERTA, ROBERTA_PAIR),
}
"""The file that a family's tokenizer needs, its reader, its special tokens and its pairs."""
