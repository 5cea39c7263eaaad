"""Texts for SentencePiece tokenizers, and the tokenizers as the server uses them."""

import random
from collections.abc import Iterator

from attendant_export.bundle.importing import sample_texts
from tokenizers import Tokenizer

from tests.support.sentencepiece_files import SPACE, TINY_RULES

ENGLISH = [text for text in sample_texts() if text.isascii()]
EMOJI = "\U0001f600\U0001f633\u2764\ufe0f\U0001f44d\U0001f3ff\u200d\U0001f1e9\U0001f1ea"


def read_plainly(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer as a bundle has it and the server uses it."""
    read = Tokenizer.from_str(tokenizer.to_str())
    read.encode_special_tokens = True
    return read


def drawn_texts() -> Iterator[str]:
    """Endless strings: words, marks in odd places, emoji, other scripts, and spaces."""
    draw = random.Random(5)
    words = " ".join(ENGLISH).split()
    odd = [*TINY_RULES, *EMOJI, "\u0301", "\u0308", "\u0323", SPACE, "  ", "\u00fc\u00df", "zebra"]
    while True:
        text = list(" ".join(draw.choices(words, k=draw.randint(0, 8))))
        for _ in range(draw.randint(0, 6)):
            text.insert(draw.randint(0, len(text)), draw.choice(odd))
        if draw.random() < 0.3:
            first = draw.choice((0x20, 0x300, 0x590, 0x900, 0x1100, 0x3040, 0xFF00, 0x1F600))
            text += [chr(first + draw.randrange(128)) for _ in range(draw.randint(1, 12))]
        if draw.random() < 0.1:
            text.insert(0, draw.choice((">>fra<<", ">>pt_BR<< ", ">>xx<<", ">>", ">> a << ")))
        yield "".join(text)
