"""The types of the values that options of the clients take."""

import os
from collections.abc import Callable
from typing import Literal, TypedDict

FilePath = str | os.PathLike[str]
Token = str | Callable[[], str]
Truncation = Literal["refuse", "right", "left"]
Pooling = Literal["mean", "cls", "max", "last", "weighted_mean", "mean_sqrt_length"]
Side = Literal["source", "target"]
Splitting = Literal["none", "lines", "sentences"]
TextNormalization = Literal["none", "standard"]
Role = Literal["query", "document"]


class ConnectionOptions(TypedDict):
    """The keyword arguments of a client that decide about TLS and authentication."""

    tls: bool | None
    tls_ca: FilePath | None
    tls_cert: FilePath | None
    tls_key: FilePath | None
    token: Token | None
    allow_plain_token: bool
