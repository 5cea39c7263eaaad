"""RPCs as values: their method, request and parser; calls with texts can be split.

Both clients share this module: they differ only in how they wait. Knows no channel.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, TypeVar

from attendant.v1 import language_model_pb2, translation_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from attendant_client.errors import CallTooLargeError, TextError, bad_answer, text_error
from attendant_client.results import TextResult

Value = TypeVar("Value")
Result = TypeVar("Result", bound=TextResult)

DEFAULT_MAX_TEXTS = 256
MAX_REQUEST_BYTES = 4 * 1024 * 1024 - 4096
"""The server's default limits of a request, for a call whose own limits are not known yet."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLACE = re.compile(
    r"(?:(?:texts|pairs|queries|documents|prompts)\[\d+\]|text|prompt)(?:\.(\w+))?: "
    r"|(text_pairs|target_prefixes)\[\d+\]: |(?:spans|candidates)\[\d+\]\.([\w.\[\]]+): "
)
"""The place of a text in its request, at the beginning of the server's messages."""
_SAMPLED = translation_pb2.TranslateRequest, language_model_pb2.GenerateRequest
"""Requests whose samples depend on the places of texts."""
MAX_MODEL_CHARACTERS = 256
"""The longest name of a model that metadata carries."""
_SIDES: dict[str | None, str] = {"text_pairs": "second text", "target_prefixes": "target_prefix"}


@dataclass(frozen=True, slots=True)
class Call(Generic[Value]):
    """One RPC to be made; `parse` turns a response and the request id into the result.

    `is_idempotent` says whether it may be repeated although it may have been carried out.
    """

    method: str
    request: Message
    response_type: type[Message]
    parse: Callable[[Any, str], Value]
    is_idempotent: bool = True


@dataclass(frozen=True, slots=True)
class TextCall(Generic[Result]):
    """An RPC with a result for each of its texts.

    `parse` turns a message of `response_type`, the errors of its texts and the request id into
    their results.
    """

    method: str
    request: Message
    response_type: type[Message]
    parse: Callable[[Any, Sequence[TextError | None], str], list[Result]]
    fields: tuple[str, ...] = ("texts",)
    """The fields of the request that have a value for each text."""
    results_field: str = "results"
    """The field of the response that has a message for each text."""
    faults: Mapping[int, str] = field(default_factory=dict)
    """The problems of texts that cannot be sent; the request has an empty text instead."""
    first: int = 0
    """The index of the first text among the texts of the method."""

    @property
    def num_texts(self) -> int:
        """Number of texts."""
        return len(getattr(self.request, self.fields[0]))

    def part(self, begin: int, end: int) -> Self:
        """The call with the texts `begin` to `end`, exclusive, only."""
        request = type(self.request)()
        request.CopyFrom(self.request)
        for name in self.fields:
            values = getattr(request, name)
            del values[end:], values[:begin]
        if isinstance(request, _SAMPLED):
            _move_samples(request.options, begin)
        faults = {i - begin: problem for i, problem in self.faults.items() if begin <= i < end}
        return replace(self, request=request, faults=faults, first=self.first + begin)

    def rpc(self) -> Call[list[Result]]:
        """The RPC for all texts."""
        return Call(self.method, self.request, self.response_type, self._parse)

    def failed(self, error: CallTooLargeError) -> list[Result]:
        """The result of the only text of a call that is too large."""
        response = self.response_type()
        getattr(response, self.results_field).add().error.code = error.code.value[0]
        getattr(response, self.results_field)[0].error.message = error.message
        return self._parse(response, error.request_id)

    def _parse(self, response: Any, request_id: str) -> list[Result]:
        items = getattr(response, self.results_field)
        if len(items) != self.num_texts:
            raise bad_answer(f"{len(items)} results for {self.num_texts} texts")
        for i, problem in self.faults.items():
            items[i].Clear()
            items[i].error.code, items[i].error.message = code_pb2.INVALID_ARGUMENT, problem
        errors = [
            self._error(item.error, self.first + i, request_id) if item.HasField("error") else None
            for i, item in enumerate(items)
        ]
        return self.parse(response, errors, request_id)

    def _error(self, status: status_pb2.Status, index: int, request_id: str) -> TextError:
        if place := _PLACE.match(status.message):
            side = place[1] or _SIDES.get(place[2]) or place[3]
            problem = status.message[place.end() :]
            status.message = f"{side}: {problem}" if side else problem
        return text_error(status, index, request_id)


def named_model(request: Message) -> str:
    """The model that a request names, for metadata; "" for none or one that metadata cannot carry.

    The first message of a bulk call names it in its settings.
    """
    name = str(getattr(getattr(request, "settings", request), "model", ""))
    fits = name.isascii() and name.isprintable() and len(name) <= MAX_MODEL_CHARACTERS
    return name if fits else ""


class CallSplitter:
    """Splits calls that exceed the limits of the server, which it learns from failed calls."""

    def __init__(self) -> None:
        self._max_texts = DEFAULT_MAX_TEXTS

    def parts(self, call: TextCall[Result]) -> Iterator[TextCall[Result]]:
        """Calls within the known limits, in the order of their texts; none without texts."""
        if call.num_texts > self._max_texts:
            for begin in range(0, call.num_texts, self._max_texts):
                yield from self.parts(call.part(begin, begin + self._max_texts))
        elif call.num_texts > 1 and call.request.ByteSize() > MAX_REQUEST_BYTES:
            for half in _halves(call):
                yield from self.parts(half)
        elif call.num_texts:
            yield call

    def smaller(
        self, call: TextCall[Result], error: CallTooLargeError
    ) -> Iterator[TextCall[Result]]:
        """Calls to be made instead of a refused one with several texts."""
        if error.max_texts is not None and 0 < error.max_texts < call.num_texts:
            self._max_texts = min(self._max_texts, error.max_texts)
            return self.parts(call)
        return _halves(call)


def _move_samples(
    options: translation_pb2.TranslateOptions | language_model_pb2.GenerateOptions, begin: int
) -> None:
    """Let texts after the first `begin` ones have the samples that they have in the whole call."""
    if options.HasField("sampling"):
        options.sampling.first_index += begin


def _halves(call: TextCall[Result]) -> Iterator[TextCall[Result]]:
    middle = call.num_texts // 2
    yield call.part(0, middle)
    yield call.part(middle, call.num_texts)


def sendable(texts: Sequence[str]) -> tuple[list[str], dict[int, str]]:
    """The texts, empty where one cannot be sent, and the problems of these by their indices."""
    sent, faults = list(texts), {}
    for i, text in enumerate(sent):
        if not isinstance(text, str):
            raise TypeError(f"a text must be a str, not {type(text).__name__}")
        if problem := surrogate_in(text):
            faults[i], sent[i] = problem, ""
    return sent, faults


def surrogate_in(text: str) -> str:
    """The problem of a text that UTF-8 cannot represent; empty for other texts."""
    found = _SURROGATE.search(text)
    return surrogate_problem(found[0], found.start()) if found else ""


def surrogate_problem(surrogate: str, position: int) -> str:
    """The problem of a text that UTF-8 cannot represent."""
    return f"has the lone surrogate U+{ord(surrogate):04X} at character {position}"
