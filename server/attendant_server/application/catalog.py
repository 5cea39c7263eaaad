"""Which models there are, which of them can answer, and how requests name them.

Knows nothing of gRPC. The app fills it in two steps: the bundles at start, the models once loaded.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from attendant.v1 import bundle_pb2

from attendant_server import records
from attendant_server.bundles import Bundle, version_order
from attendant_server.engine.calls import Call, Result
from attendant_server.errors import InvalidRequest, ModelNotFound, QueueFull, Unavailable
from attendant_server.tokenizer import TextTokenizer

Kind: TypeAlias = bundle_pb2.ModelKind.ValueType

TRANSLATION = bundle_pb2.MODEL_KIND_TRANSLATION
EMBEDDING = bundle_pb2.MODEL_KIND_EMBEDDING
_KINDS = {TRANSLATION: "translation model", EMBEDDING: "embedding model"}


class Submitting(Protocol):
    """The part of the engine that services use."""

    def submit(self, model: str, call: Call[Any]) -> None:
        """Admit a call or raise QueueFull or Unavailable; never blocks."""

    def clock(self) -> float:
        """The time, in seconds, that deadlines of calls are on."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that can answer."""

    bundle: Bundle
    source_tokenizer: TextTokenizer
    """Reads texts to translate or to embed."""
    target_tokenizer: TextTokenizer
    """Reads and writes translations."""
    mask_tokenizer: TextTokenizer
    """Reads texts to embed, and recognizes the mask token in them."""
    engine: Submitting
    on_refused: Callable[[str], None]
    """Is told why a call was not admitted: ``queue_full`` or ``unavailable``."""

    @property
    def manifest(self) -> bundle_pb2.Manifest:
        """What the bundle says about the model."""
        return self.bundle.manifest

    async def answer(self, call: Call[Result]) -> list[Result]:
        """Let the engine answer a call; cancelling this abandons the call."""
        records.current().engine = call.timings
        try:
            self.engine.submit(self.bundle.key, call)
        except QueueFull:
            self.on_refused("queue_full")
            raise
        except Unavailable:
            self.on_refused("unavailable")
            raise
        return await asyncio.wrap_future(call.future)


class Catalog:
    """All models of the server, loading or ready."""

    def __init__(self, bundles: Sequence[Bundle], on_refused: Callable[[str], None]) -> None:
        """``on_refused`` is told ``unavailable`` for each call to a model that is loading."""
        self._on_refused = on_refused
        self.bundles = sorted(
            bundles, key=lambda b: (b.manifest.name, version_order(b.manifest.version))
        )
        self._of_kind = {
            kind: [b for b in self.bundles if b.manifest.kind == kind] for kind in _KINDS
        }
        self._ready: dict[str, ServedModel] = {}

    def open(self, models: Mapping[str, ServedModel]) -> None:
        """Let these models, by their keys, answer from now on."""
        self._ready.update(models)

    def is_ready(self, bundle: Bundle) -> bool:
        """Whether the model can answer."""
        return bundle.key in self._ready

    def is_default(self, bundle: Bundle) -> bool:
        """Whether requests that name no version get this one: the highest."""
        return bundle is [b for b in self.bundles if b.manifest.name == bundle.manifest.name][-1]

    def find(self, model: str, kind: Kind | None = None) -> Bundle:
        """The bundle that a request's ``model`` means; raises ModelNotFound or InvalidRequest."""
        candidates = self.bundles if model or kind is None else self._of_kind[kind]
        if model:
            candidates = [b for b in candidates if model in (b.key, b.manifest.name)]
        if not candidates:
            missing = "such model" if model or kind is None else _KINDS[kind]
            raise ModelNotFound(f"model: no {missing}; there are {self._names(self.bundles)}")
        if len({b.manifest.name for b in candidates}) > 1:
            raise InvalidRequest("model", f"must name one of {self._names(candidates)}")
        found = candidates[-1]
        if kind is not None and found.manifest.kind != kind:
            raise InvalidRequest("model", f"{found.key} is no {_KINDS[kind]}")
        return found

    def serving(self, model: str, kind: Kind | None = None) -> ServedModel:
        """Like `find`, but the model itself; raises Unavailable while it is loading."""
        bundle = self.find(model, kind)
        records.current().model = bundle.key
        if bundle.key not in self._ready:
            self._on_refused("unavailable")
            raise Unavailable(f"{bundle.key} is loading")
        return self._ready[bundle.key]

    def _names(self, bundles: Sequence[Bundle]) -> str:
        return ", ".join(b.key for b in bundles) or "none"
