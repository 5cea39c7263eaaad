"""The types of the values that options of the clients take."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

FilePath = str | os.PathLike[str]
Token = str | Callable[[], str]
Truncation = Literal["refuse", "right", "left"]
Pooling = Literal["mean", "cls", "max", "last", "weighted_mean", "mean_sqrt_length"]
DataType = Literal["float32", "float16", "int8", "uint8", "binary"]
Chunking = Literal["sentences", "tokens"]
LayerCombination = Literal["mean", "concatenation"]
VectorUnit = Literal["tokens", "words", "spans"]
Span = tuple[int, int]
GlossaryEntries = Mapping[str, str | Sequence[str]]
Candidates = Sequence[str] | Sequence[Sequence[str]] | Sequence[Sequence[Sequence[str]]]
OffsetUnit = Literal["code_points", "utf8_bytes", "utf16_units"]
Side = Literal["source", "target"]
Splitting = Literal["none", "lines", "sentences"]
Markup = Literal["none", "html", "xml"]
TextNormalization = Literal["none", "standard"]
Role = Literal["query", "document"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn at random. None takes the server's default.

    `temperature`: less than 1 makes likely tokens likelier; 1 if absent.
    `top_k`: only this many of the likeliest tokens are drawn, 1 to 256; 50 if absent.
    `top_p`: only the likeliest tokens with this probability together are drawn; 1 if absent.
    `min_p`: only tokens with at least this times the probability of the likeliest one are drawn; 0
    if absent.
    `seed`: the same seed gives the same results for the same texts in the same order, however many
    calls they need. If absent, one is chosen (`CallReport.seed`).
    `first_index`: the index of the first text among all texts, if a call has a part of them.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    first_index: int = 0


class ConnectionOptions(TypedDict):
    """The keyword arguments of a client that decide about TLS and authentication."""

    tls: bool | None
    tls_ca: FilePath | None
    tls_cert: FilePath | None
    tls_key: FilePath | None
    token: Token | None
    allow_plain_token: bool
