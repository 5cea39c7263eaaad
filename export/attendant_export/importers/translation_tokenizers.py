"""The tokenizers and languages of an imported translation model."""

from collections.abc import Sequence
from dataclasses import dataclass

from attendant.v1.bundle_pb2 import Language, SpecialTokens
from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class TranslationTokenizers:
    """The tokenizers of a translation model."""

    source: Tokenizer
    target: Tokenizer
    """The same object as ``source`` if targets are tokenized like sources."""
    source_tokens: SpecialTokens
    target_tokens: SpecialTokens
    max_tokens: int
    """Limit of tokens of a text."""
    source_languages: Sequence[Language] = ()
    """The languages of the sources, if the checkpoint states them."""
    target_languages: Sequence[Language] = ()
