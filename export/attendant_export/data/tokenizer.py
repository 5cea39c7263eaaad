"""Tokenizers that the exporter trains: BPE and unigram for translation, WordPiece for BERT.

Causal language models have BPE of bytes.

Depends on the ``tokenizers`` library, not on models.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from attendant_export.data.byte_fallback import train_with_bytes

TOKENIZER = "tokenizer.json"
"""Name of the tokenizer's file in run folders and bundles."""
TARGET_TOKENIZER = "target_tokenizer.json"
"""Name of the file of the tokenizer of targets, if it is another one."""

NUM_BYTES = 256
PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
BPE, BPE_BYTES, UNIGRAM_BYTES = "bpe", "bpe-bytes", "unigram-bytes"
KINDS = {
    BPE: "BPE",
    BPE_BYTES: "BPE with byte fallback",
    UNIGRAM_BYTES: "unigram vocabulary with byte fallback",
}
"""The kinds of tokenizers of translation models, with their names in descriptions."""
BERT_PAD, BERT_UNK, BERT_CLS, BERT_SEP, BERT_MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``. Raises ValueError that names a missing or invalid file."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises no narrower class.
        raise ValueError(f"{path}: {error}") from error


def special_token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of ``token``. Raises ValueError if it is not in the vocabulary."""
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise ValueError(f"the tokenizer has no token {token}")
    return token_id


def unknown_token_id(tokenizer: Tokenizer) -> int | None:
    """The id of the token for text outside the vocabulary; None if there is no such token."""
    model = json.loads(tokenizer.to_str())["model"]
    token = model.get("unk_token")
    unk_id: int | None = model.get("unk_id") if token is None else tokenizer.token_to_id(token)
    return unk_id


def train_translation_tokenizer(
    texts: Iterable[str], vocab_size: int, kind: str = BPE, others: Sequence[str] = ()
) -> Tokenizer:
    """Train a vocabulary of one of `KINDS`: BPE (Sennrich et al., 2016) or unigram (Kudo, 2018).

    Ids 0 to 3 are padding, begin, end and unknown, then come ``others``, further special tokens. An
    encoding ends with ``</s>``. Runs of white space count as one space. Offsets refer to the
    original text. Kinds with byte fallback read ``texts`` twice, and write a character that the
    vocabulary lacks as its bytes in UTF-8; without it, such a character is unknown. Raises
    ValueError for a vocabulary that is too small for bytes and characters.
    """
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    pre_tokenizer = _pre_tokenizer(kind)
    special = [PAD, BOS, EOS, UNK, *others]
    if kind == BPE:
        tokenizer = Tokenizer(models.BPE(unk_token=UNK))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=special, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
    else:
        is_unigram = kind == UNIGRAM_BYTES
        tokenizer = train_with_bytes(
            texts, vocab_size, special, UNK, is_unigram, normalizer, pre_tokenizer
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return tokenizer


def _pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    """Splits texts into words, which no token extends beyond."""
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Metaspace()]
    if kind != UNIGRAM_BYTES:
        # A unigram trainer finds a word only within several others, such as those with commas.
        steps.append(pre_tokenizers.Punctuation("isolated"))
    return pre_tokenizers.Sequence(steps)


def train_language_model_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a vocabulary of byte-level BPE (Radford et al., 2019), which has no unknown text.

    Ids 0 to 2 are padding, begin and end, which encodings do not have. Texts are not normalized, so
    that decoding gives the text back. Raises ValueError for a vocabulary that is too small for the
    256 bytes.
    """
    special = [PAD, BOS, EOS]
    least = len(special) + NUM_BYTES
    if vocab_size < least:
        raise ValueError(f"vocab_size must be at least {least}, for bytes and special tokens")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_bert_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a cased WordPiece vocabulary (Devlin et al., 2019). Encoding adds [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=BERT_UNK))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special_tokens = [BERT_PAD, BERT_UNK, BERT_CLS, BERT_SEP, BERT_MASK]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=special_tokens, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BERT_CLS} $A {BERT_SEP}",
        pair=f"{BERT_CLS} $A {BERT_SEP} $B:1 {BERT_SEP}:1",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in (BERT_CLS, BERT_SEP)],
    )
    return tokenizer
