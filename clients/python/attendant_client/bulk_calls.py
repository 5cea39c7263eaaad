"""Bulk calls as values: their messages and the parser of their responses.

Both clients share this module. Knows no channel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from attendant.v1 import embedding_pb2, text_pb2, translation_pb2
from google.protobuf.message import Message

from attendant_client import embedding_results, results
from attendant_client.calls import Result, TextCall, sendable, surrogate_in
from attendant_client.errors import bad_answer

MAX_ID_CHARACTERS = 128
"""The longest id that the server takes."""
BulkItem = str | tuple[str, str]
"""A text, or a pair of its id and the text."""


@dataclass(slots=True)
class BulkText:
    """A text of a bulk call that was read and not answered yet."""

    index: int
    """Its index among the texts of the call, from 0."""
    id: str
    text: str
    fault: str | None = None
    """Its problem if it cannot be sent; the text is then empty."""

    def refuse(self, problem: str) -> None:
        """Send the text no more, because of a problem."""
        self.text, self.fault = "", problem


def bulk_text(index: int, item: object) -> BulkText:
    """A text from the caller; raises TypeError, and ValueError for an id that cannot be sent."""
    text_id, text = item if isinstance(item, tuple) and len(item) == 2 else ("", item)
    if not isinstance(text_id, str):
        raise TypeError(f"the id of text {index} must be a str, not {type(text_id).__name__}")
    if len(text_id) > MAX_ID_CHARACTERS:
        raise ValueError(
            f"the id of text {index} must have at most {MAX_ID_CHARACTERS} characters, not "
            f"{len(text_id)}"
        )
    if problem := surrogate_in(text_id):
        raise ValueError(f"the id of text {index} {problem}")
    [sent], faults = sendable([text])  # type: ignore[list-item]  # it checks the type
    return BulkText(index, text_id, sent, faults.get(0))


@dataclass(frozen=True, slots=True)
class BulkCall(Generic[Result]):
    """A stream of texts, each of which gets the result that it would get in `template`."""

    method: str
    request_type: type[Message]
    response_type: type[Message]
    template: TextCall[Result]
    """The call without bulk, with one text."""
    of_fault: Callable[[Result], Result] = lambda result: result
    """Turns the result of a text that failed into that of a bulk call."""

    @property
    def request(self) -> Message:
        """The first message of the stream."""
        return self.settings(0)

    def settings(self, first: int) -> Message:
        """The first message of a stream that begins with the text of this index."""
        settings = self.template.request.__class__()
        settings.CopyFrom(self.template.request)
        settings.ClearField(self.template.fields[0])
        if isinstance(settings, translation_pb2.TranslateRequest) and (
            settings.options.HasField("sampling")
        ):
            settings.options.sampling.first_index += first
        return self.request_type(settings=settings)

    def message(self, texts: Sequence[BulkText]) -> Message:
        """The message of texts."""
        return self.request_type(texts=[text_pb2.BulkText(id=t.id, text=t.text) for t in texts])

    def results(self, response: Any, texts: Sequence[BulkText], request_id: str) -> list[Result]:
        """The results of texts; raises ServerError for the response to other ones."""
        if list(response.ids) != [text.id for text in texts]:
            raise bad_answer("a response has the id of another text", request_id)
        request = self.template.request.__class__(texts=[""] * len(texts))
        faults = {i: text.fault for i, text in enumerate(texts) if text.fault is not None}
        call = replace(self.template, request=request, first=texts[0].index, faults=faults)
        found = call.rpc().parse(response.answer, request_id)
        return [
            self._with_id(result if result.error is None else self.of_fault(result), text.id)
            for result, text in zip(found, texts, strict=True)
        ]

    @staticmethod
    def _with_id(result: Result, text_id: str) -> Result:
        return replace(result, id=text_id)  # type: ignore[type-var]  # all results are dataclasses


def bulk_translate(call: TextCall[results.Translation]) -> BulkCall[results.Translation]:
    """BulkTranslate with the options of a Translate call of one text."""
    return BulkCall(
        "/attendant.v1.TranslationService/BulkTranslate",
        translation_pb2.BulkTranslateRequest,
        translation_pb2.BulkTranslateResponse,
        call,
    )


def bulk_embed(
    call: TextCall[embedding_results.Embedding],
) -> BulkCall[embedding_results.Embedding]:
    """BulkEmbed with the options of an Embed call of one text."""
    return BulkCall(
        "/attendant.v1.EmbeddingService/BulkEmbed",
        embedding_pb2.BulkEmbedRequest,
        embedding_pb2.BulkEmbedResponse,
        call,
        _without_vector,
    )


def _without_vector(result: embedding_results.Embedding) -> embedding_results.Embedding:
    """The result of a text that failed, whether or not other texts of its message have vectors."""
    return replace(result, vector=result.vector[:0], scale=None)
