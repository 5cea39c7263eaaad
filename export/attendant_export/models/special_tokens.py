"""Ids of the special tokens in vocabularies that the exporter trains."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TranslationTokens:
    """Special tokens of a translation model."""

    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    target_pad_id: int = 0
    """Padding of targets, which no target has as a token."""


@dataclass(frozen=True, slots=True)
class LanguageModelTokens:
    """Special tokens of a causal language model."""

    pad_id: int = 0
    bos_id: int | None = 1
    """Token before every text. None: there is no such token."""
    eos_id: int = 2


@dataclass(frozen=True, slots=True)
class EncoderTokens:
    """Special tokens of an encoder. None: there is no such token."""

    pad_id: int = 0
    cls_id: int | None = 2
    sep_id: int | None = 3
    mask_id: int | None = 4
