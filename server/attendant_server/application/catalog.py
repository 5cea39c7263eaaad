"""The catalog of models: descriptions, readiness and lookup by name.

A model enters it in two steps: its description before loading, the loaded model after it.
"""

import asyncio
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from attendant_server import records
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.application.glossaries import Glossary
from attendant_server.application.model_usage import ModelUsage
from attendant_server.engine.calls import Call, Result, joined_timings
from attendant_server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    QueueFull,
    Unavailable,
    WaitTooLong,
)
from attendant_server.tokenizer import TextTokenizer

MAX_PAUSE_SECONDS = 1.0
"""Longest time after which a call that waits for room looks for it again."""


class Submitting(Protocol):
    """The part of the engine that the application uses."""

    def submit(self, model: str, call: Call[Any]) -> None:
        """Admit a call; raises QueueFull or Unavailable. Never blocks."""

    def clock(self) -> float:
        """The clock of call deadlines, in seconds."""


@dataclass(frozen=True)
class ServedModel:
    """A loaded model."""

    description: ModelDescription
    source_tokenizer: TextTokenizer
    """Tokenizer of texts to translate, to embed or to continue."""
    target_tokenizer: TextTokenizer
    """Tokenizer of what the model writes."""
    mask_tokenizer: TextTokenizer | None
    """Tokenizer of texts to embed that recognizes the mask token, if the model has one."""
    engine: Submitting
    engine_name: str
    """The engine's name of the model. It differs between a model and its replacement."""
    on_refused: Callable[[str], None]
    """Receives the reason of each refusal: ``queue_full``, ``queue_wait`` or ``unavailable``."""
    special_tokenizer: TextTokenizer | None = None
    """Tokenizer of prompts that recognizes special tokens, of a language model."""
    open_attention: Callable[[], None] | None = None
    """Opens the attention graph, unless it is open; raises ModelNotLoaded. May take seconds. None
    for a model without one."""
    glossaries: Mapping[str, Glossary] = field(default_factory=dict, repr=False)
    """The glossaries that come with the model, by name."""
    usage: ModelUsage = field(default_factory=ModelUsage)
    plans: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)
    """Remembered plans of calls, by their options."""

    @cached_property
    def text_codes(self) -> frozenset[int]:
        """Tokens with which a text can choose its target language itself, such as ``>>fra<<``.

        These are tokens before a source that the tokenizer also reads in a text. Special tokens
        are not read there.
        """
        return frozenset(
            language.source_prefix_ids[0]
            for language in self.description.target_languages
            if language.is_code and self.source_tokenizer.is_plain(language.source_prefix_ids[0])
        )

    async def answer(self, call: Call[Result], may_wait: bool = False) -> list[Result]:
        """Let the engine answer a call; cancelling the coroutine abandons the call.

        ``may_wait``: a call for which the queue has no room waits for it instead of being refused,
        and is admitted however long its texts wait. Raises DeadlineExceeded once its deadline has
        passed without room.
        """
        if not call.num_texts:
            return []
        record = records.current()
        record.engine, call.caller = call.timings, record.engine_caller
        call.may_wait = may_wait
        while True:
            try:
                self.engine.submit(self.engine_name, call)
                break
            except QueueFull as error:
                if not may_wait:
                    is_wait = isinstance(error, WaitTooLong)
                    self.on_refused("queue_wait" if is_wait else "queue_full")
                    raise
                if call.is_expired(self.engine.clock()):
                    raise DeadlineExceeded(
                        "the deadline passed before the queue had room for the call"
                    ) from None
                await asyncio.sleep(min(error.retry_after_seconds, MAX_PAUSE_SECONDS))
            except Unavailable:
                self.on_refused("unavailable")
                raise
        return await asyncio.wrap_future(call.future)

    async def answer_further(self, call: Call[Result]) -> list[Result]:
        """Like `answer` for a further call of the same request, which waits for room.

        The record then has the times of all calls so far, as of one.
        """
        record = records.current()
        before = record.engine
        found = await self.answer(call, may_wait=True)
        record.engine = joined_timings([before, call.timings])
        return found


class Catalog:
    """All models of the server, loading or ready."""

    def __init__(
        self, on_refused: Callable[[str], None], default_models: Sequence[str] = ()
    ) -> None:
        """An empty catalog.

        ``on_refused`` receives ``unavailable`` for each call to a model that is loading.
        ``default_models`` are names or keys of models for requests that name none, in order of
        preference.
        """
        self._on_refused, self._default_models = on_refused, default_models
        self.descriptions: Sequence[ModelDescription] = []
        """All models, sorted by name and then by version. A change replaces the list."""
        self._ready: dict[str, ServedModel] = {}
        self._default_versions: Mapping[str, str] = {}

    def announce(self, descriptions: Iterable[ModelDescription]) -> None:
        """List these models as loading, unless they are ready or listed already."""
        known = {d.key for d in self.descriptions}
        self._list([d for d in descriptions if d.key not in known])

    def open(self, models: Iterable[ServedModel]) -> None:
        """Make these models ready, all at once; each replaces the ready model of its key."""
        opened = {model.description.key: model for model in models}
        self._ready.update(opened)
        self.descriptions = [d for d in self.descriptions if d.key not in opened]
        self._list([model.description for model in opened.values()])

    def close(self, key: str) -> None:
        """List a model as loading again."""
        self._ready.pop(key, None)

    def withdraw(self, key: str) -> None:
        """Remove a model; calls that use it go on."""
        self._ready.pop(key, None)
        self.descriptions = [d for d in self.descriptions if d.key != key]

    def choose_defaults(self, versions: Mapping[str, str]) -> None:
        """Make these versions, by name, the defaults; those of other names are the highest ones."""
        self._default_versions = versions

    def ready(self, key: str) -> ServedModel | None:
        """The ready model with this key, for changes of the catalog. Calls use `serving`."""
        return self._ready.get(key)

    def is_ready(self, description: ModelDescription) -> bool:
        """Whether the model can answer."""
        return description.key in self._ready

    def permitted(self) -> Sequence[ModelDescription]:
        """The models that the caller of the running call may use, in the same order."""
        caller = records.current().caller
        if caller.models is None:
            return self.descriptions
        return [d for d in self.descriptions if caller.may_use(d.name, d.version)]

    def is_default(self, description: ModelDescription) -> bool:
        """Whether the caller gets this version by its name alone."""
        versions = [d for d in self.permitted() if d.name == description.name]
        return description is self._default_of(versions)

    def is_default_of_kind(self, description: ModelDescription) -> bool:
        """Whether the caller gets this model by a request that names none."""
        of_kind = [d for d in self.permitted() if d.kind is description.kind]
        try:
            return description is self._chosen(of_kind)
        except InvalidRequest:
            return False

    def find(
        self,
        model: str,
        kind: ModelKind | None = None,
        fits: Callable[[ModelDescription], bool] | None = None,
        wanted: str = "",
    ) -> ModelDescription:
        """The model that a request names, or the first of the default models that fits.

        Raises ModelNotFound, InvalidRequest, or PermissionDenied if the caller may not use every
        model and none of its models has the name. Models that it may not use are no candidates.
        Without ``model``, only models of ``kind`` that ``fits`` accepts are candidates. ``wanted``
        says what it accepts. Messages list models of ``kind`` only.
        """
        permitted = self.permitted()
        of_kind = [d for d in permitted if kind is None or d.kind is kind]
        if model:
            candidates = [d for d in permitted if model in (d.key, d.name)]
            if not candidates and permitted is not self.descriptions:
                models = "models" if kind is None else f"{kind.noun}s"
                allowed = f"this caller may use only these {models}: {_keys(of_kind)}"
                raise PermissionDenied(f"model: {allowed}")
        else:
            candidates = [d for d in of_kind if fits is None or fits(d)]
        if not candidates:
            missing = "such model" if model or kind is None else kind.noun
            missing += f" for {wanted}" if wanted and not model else ""
            raise ModelNotFound(f"model: no {missing}; there are {_keys(of_kind)}")
        found = self._default_of(candidates) if model else self._chosen(candidates)
        if kind is not None and found.kind is not kind:
            raise InvalidRequest("model", f"{found.key} is no {kind.noun}")
        return found

    def serving(
        self,
        model: str,
        kind: ModelKind | None = None,
        fits: Callable[[ModelDescription], bool] | None = None,
        wanted: str = "",
    ) -> ServedModel:
        """The loaded model that a request means; raises like `find`, or Unavailable if loading.

        The model is in use until the running task ends.
        """
        key = self.find(model, kind, fits, wanted).key
        records.current().model = key
        if key not in self._ready:
            self._on_refused("unavailable")
            raise Unavailable(f"{key} is loading")
        found = self._ready[key]
        found.usage.begin()
        return found

    def _list(self, descriptions: Sequence[ModelDescription]) -> None:
        self.descriptions = sorted(
            [*self.descriptions, *descriptions], key=lambda d: (d.name, version_order(d.version))
        )

    def _chosen(self, candidates: Sequence[ModelDescription]) -> ModelDescription:
        """The model of a request that names none."""
        for preferred in self._default_models:
            if versions := [d for d in candidates if preferred in (d.key, d.name)]:
                return self._default_of(versions)
        if len({d.name for d in candidates}) > 1:
            problem = f"must name one of {_keys(candidates)}"
            if all(d.kind is ModelKind.TRANSLATION for d in candidates):
                problem += ", unless the languages of the request leave only one"
            raise InvalidRequest("model", problem)
        return self._default_of(candidates)

    def _default_of(self, versions: Sequence[ModelDescription]) -> ModelDescription:
        """The chosen default of a name, or the highest version; one that is ready, if any is."""
        chosen = self._default_versions.get(versions[0].name)
        ready = [d for d in versions if d.key in self._ready] or versions
        return next((d for d in ready if d.version == chosen), ready[-1])


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key of a version: 1.9 < 1.10 and 1.0-rc1 < 1.0 < 1.0.1."""
    parts = re.findall(r"\d+|[A-Za-z]+", version)
    keys = ((2, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
    return (*keys, (1, 0, ""))  # the end comes after a word and before a number


def _keys(descriptions: Sequence[ModelDescription]) -> str:
    return ", ".join(d.key for d in descriptions) or "none"
