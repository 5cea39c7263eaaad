"""Identities of callers: their names, the methods and models that they may use, their limits."""

from dataclasses import dataclass
from typing import NamedTuple

CONTROL_METHODS = frozenset({"LoadModel", "UnloadModel"})
"""Methods that change the server. A caller may call them only if they are permitted by name."""
KEY = "key:"
"""Beginning of the names of callers with API keys."""


class Quota(NamedTuple):
    """Limits of one caller: 0 for no limit, None for the limit in the settings."""

    max_concurrent_calls: int | None = None
    max_texts_per_minute: int | None = None
    max_tokens_per_minute: int | None = None
    """Tokens of texts, not those of answers."""


NO_LIMITS = Quota(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Identity:
    """The authenticated identity of a caller, or `ANONYMOUS`."""

    name: str
    """The kind of its credentials and its name: ``key:search``, ``jwt:alice``, ``cert:worker-3``.
    Fit for the log."""
    methods: frozenset[str] | None = None
    """Names of methods that it may call, such as ``Translate``; None for all but
    `CONTROL_METHODS`."""
    models: frozenset[str] | None = None
    """Models that it may use, ``name`` or ``name/version``; None for all."""
    quota: Quota = Quota()
    weight: float = 1.0
    """Its share of a busy server, relative to the shares of other callers."""
    is_bulk: bool = False
    """Whether nobody waits for its answers, so that other callers have priority."""

    def may_call(self, method: str) -> bool:
        """Whether it may call a method of the package attendant."""
        if self.methods is None:
            return method not in CONTROL_METHODS
        return method in self.methods

    def may_use(self, name: str, version: str) -> bool:
        """Whether it may use this version of a model."""
        return self.models is None or name in self.models or f"{name}/{version}" in self.models


ANONYMOUS = Identity("anonymous")
"""The identity of every caller of a server without authentication."""
