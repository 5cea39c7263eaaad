"""The caller of a call: its name, and the methods and models that it may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller that the server knows, or `ANONYMOUS`."""

    name: str
    """The kind of its credentials and its name: ``key:search``, ``jwt:alice``, ``cert:worker-3``.
    Fit for the log."""
    methods: frozenset[str] | None = None
    """Names of methods that it may call, such as ``Translate``; None for all."""
    models: frozenset[str] | None = None
    """Models that it may use, ``name`` or ``name/version``; None for all."""

    def may_call(self, method: str) -> bool:
        """Whether it may call a method of the package attendant."""
        return self.methods is None or method in self.methods

    def may_use(self, name: str, version: str) -> bool:
        """Whether it may use this version of a model."""
        return self.models is None or name in self.models or f"{name}/{version}" in self.models


ANONYMOUS = Caller("anonymous")
"""Every caller of a server without authentication."""
