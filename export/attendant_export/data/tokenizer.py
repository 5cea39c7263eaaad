"""Tokenizers that the exporter trains: joint BPE for translation, WordPiece for BERT.

Depends on the ``tokenizers`` library, not on models.
"""

import json
from collections.abc import Iterable
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

TOKENIZER = "tokenizer.json"
"""Name of the tokenizer's file in run folders and bundles."""

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
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


def train_translation_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train one BPE vocabulary for source and target (Sennrich et al., 2016).

    Ids 0 to 3 are padding, begin, end and unknown. An encoding ends with ``</s>``. Runs of white
    space count as one space. Offsets refer to the original text.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, BOS, EOS, UNK], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
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
