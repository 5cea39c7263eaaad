"""Streams of texts with answers that tests make: order, bounds, faults and ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from attendant_server import records
from attendant_server.application.admission import CallAdmission
from attendant_server.application.answers import Answer
from attendant_server.application.bulk_stream import (
    MAX_UNANSWERED_CHARACTERS,
    BulkStream,
    BulkText,
    StreamTime,
)
from attendant_server.application.held_memory import HeldMemory
from attendant_server.application.quotas import CallerQuotas, current_usage
from attendant_server.callers import Identity, Quota
from attendant_server.errors import (
    AttendantError,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    PermissionDenied,
    QuotaExceeded,
    Unavailable,
)
from attendant_server.records import CallRecord, Method
from hypothesis import given
from hypothesis import strategies as st

from tests.support.application import ignore_refusal, request_limits

METHOD = Method("attendant.v1.TranslationService", "BulkTranslate", "bidi_stream")
MODEL = "upper/1"
FAULTS: list[AttendantError] = [
    InvalidRequest("text", "is empty"),
    ModelFailed("the model failed"),
    DeadlineExceeded("too late"),
    QuotaExceeded("never possible", None),
]
ENDS: list[tuple[AttendantError, type[AttendantError]]] = [
    (ModelNotFound("gone"), Unavailable),
    (PermissionDenied("gone"), Unavailable),
    (Unavailable("is loading"), Unavailable),
]
STEPS = st.lists(st.integers(0, 5), max_size=40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upper(Answer):
    text: str


class Trial:
    """One stream, its record, and what it did."""

    def __init__(self, max_texts: int = 4, **limits: Any) -> None:
        self.record = CallRecord(METHOD, model=MODEL)
        self.limits = request_limits(max_texts=max_texts, **limits)
        self.admission = CallAdmission(8, 60.0, ignore_refusal)
        self.memory = HeldMemory(10**6, 8, ignore_refusal)
        self.num_running = self.most_running = self.num_read = 0
        self.sizes: list[int] = []
        self.seconds_left: float | None = None

    async def run(
        self,
        messages: AsyncIterator[Sequence[BulkText]],
        answer: Callable[[int, BulkText], Awaitable[str]],
        quotas: CallerQuotas | None = None,
    ) -> tuple[list[tuple[str, str | AttendantError]], BaseException | None]:
        """The results, with ids, and the error at the end."""
        records.begin(self.record)
        held = self.memory.hold("caller", 0)
        held.make_current()

        async def answered(number: int, texts: Sequence[BulkText]) -> Upper:
            self.num_running += len(texts)
            self.most_running = max(self.most_running, self.num_running)
            self.sizes.append(len(texts))
            try:
                pairs = enumerate(texts, number)
                found = [await answer(i, text) for i, text in pairs]
            finally:
                self.num_running -= len(texts)
            text = "|".join(found)
            return Upper(model=MODEL, num_input_tokens=1, phases=(), size=1, text=text)

        results: list[tuple[str, str | AttendantError]] = []
        error: BaseException | None = None
        with (quotas or CallerQuotas()).call():
            stream = BulkStream(
                answered,
                lambda answer: len(answer.text),
                self.limits,
                self.admission,
                StreamTime(self.seconds_left),
            )
            try:
                async for result in stream.results(messages):
                    answers: list[Any] = [result.answer]
                    if isinstance(result.answer, Upper):
                        answers = [*result.answer.text.split("|")]
                    ids = [text.id for text in result.texts]
                    results += zip(ids, answers, strict=True)
            except AttendantError as failure:
                error = failure
        assert self.num_running == self.record.num_unanswered_texts == self.memory.num_bytes == 0
        return results, error

    async def texts(self, texts: list[str], together: int = 1) -> AsyncIterator[Sequence[BulkText]]:
        """Messages of so many texts."""
        every = [BulkText(str(number), text, len(text)) for number, text in enumerate(texts)]
        for first in range(0, len(every), together):
            message = every[first : first + together]
            self.num_read += len(message)
            yield message


async def upper(_: int, text: BulkText) -> str:
    return text.text.upper()


def words(number: int) -> list[str]:
    return [f"word {i}" for i in range(number)]


@given(STEPS, st.integers(1, 40), st.integers(1, 20))
def test_results_are_in_order_however_long_each_takes(
    steps: list[int], max_texts: int, together: int
):
    trial = Trial(max_texts)

    async def answer(number: int, text: BulkText) -> str:
        for _ in range(steps[number]):
            await asyncio.sleep(0)
        return text.text.upper()

    texts = words(len(steps))
    results, error = asyncio.run(trial.run(trial.texts(texts, together), answer))
    assert error is None
    assert results == [(str(i), text.upper()) for i, text in enumerate(texts)]
    assert trial.most_running <= max_texts


def test_a_text_is_read_as_soon_as_another_has_left():
    trial = Trial(max_texts=4)
    begun = []
    may_end = [asyncio.Event() for _ in range(8)]

    async def answer(number: int, text: BulkText) -> str:
        begun.append(number)
        await may_end[number].wait()
        return text.text

    async def watch() -> list[list[int]]:
        running = asyncio.ensure_future(trial.run(trial.texts(words(8)), answer))
        seen = []
        for end in [3, 0, 1]:  # the third text waits for its turn, and holds its place
            await asyncio.sleep(0.01)
            seen.append(list(begun))
            may_end[end].set()
        await asyncio.sleep(0.01)
        seen.append(list(begun))
        for event in may_end:
            event.set()
        await running
        return seen

    seen = asyncio.run(watch())
    assert [len(each) for each in seen] == [4, 4, 5, 6]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_is_the_result_of_its_text(fault: AttendantError):
    trial = Trial()

    async def answer(number: int, text: BulkText) -> str:
        if number == 2:
            raise fault
        return text.text

    results, error = asyncio.run(trial.run(trial.texts(words(5)), answer))
    assert error is None
    assert [found for _, found in results] == ["word 0", "word 1", fault, "word 3", "word 4"]
    assert trial.record.num_invalid_texts == isinstance(fault, InvalidRequest)


@pytest.mark.parametrize(("raised", "kind"), ENDS, ids=lambda each: getattr(each, "__name__", ""))
def test_an_end_comes_after_the_results_before_it(
    raised: AttendantError, kind: type[AttendantError]
):
    trial = Trial()

    async def answer(number: int, text: BulkText) -> str:
        if number == 3:
            raise raised
        await asyncio.sleep(0.01)  # so that the failure is there first
        return text.text

    results, error = asyncio.run(trial.run(trial.texts(words(9)), answer))
    assert [found for _, found in results] == words(3)
    assert type(error) is kind
    if not isinstance(raised, Unavailable):
        assert str(error) == f"{MODEL} has been unloaded"


def test_the_deadline_of_the_stream_ends_it():
    trial = Trial()
    trial.seconds_left = 0.0

    async def answer(number: int, text: BulkText) -> str:
        raise DeadlineExceeded("too late")

    results, error = asyncio.run(trial.run(trial.texts(words(2)), answer))
    assert (results, type(error)) == ([], DeadlineExceeded)


def test_an_error_of_the_texts_comes_after_the_results():
    trial = Trial()

    async def texts() -> AsyncIterator[Sequence[BulkText]]:
        async for message in trial.texts(words(3)):
            yield message
        raise InvalidRequest("text.id", "too long")

    results, error = asyncio.run(trial.run(texts(), upper))
    assert [found for _, found in results] == ["WORD 0", "WORD 1", "WORD 2"]
    assert str(error) == "text.id: too long"


def test_an_unexpected_error_ends_the_stream_and_its_texts():
    trial = Trial()

    async def answer(number: int, text: BulkText) -> str:
        if number == 1:
            raise ZeroDivisionError
        await asyncio.sleep(0)
        return text.text

    with pytest.raises(ZeroDivisionError):
        asyncio.run(trial.run(trial.texts(words(9)), answer))
    assert trial.num_running == 0


def test_long_texts_fill_the_room():
    trial = Trial(max_texts=100)
    long_text = "x" * (MAX_UNANSWERED_CHARACTERS // 2 + 1)
    most_read = 0

    async def answer(number: int, text: BulkText) -> str:
        nonlocal most_read
        await asyncio.sleep(0.01)
        most_read = max(most_read, trial.num_read - number)
        return ""

    results, _ = asyncio.run(trial.run(trial.texts([long_text] * 6), answer))
    assert len(results) == 6
    assert most_read == 2


def test_texts_wait_for_memory_that_other_calls_hold():
    trial = Trial()
    other = trial.memory.hold("other", 999_900)

    async def run() -> Any:
        running = asyncio.ensure_future(trial.run(trial.texts(["x" * 200] * 3), upper))
        await asyncio.sleep(0.05)
        assert trial.num_read == 1
        other.release()
        return await running

    results, error = asyncio.run(run())
    assert (len(results), error) == (3, None)


def test_texts_wait_for_the_quota_in_their_order():
    now = 0
    trial = Trial(max_texts=3)
    trial.record.caller = Identity("key:a", quota=Quota(0, 4, 0))
    passed = []

    async def answer(number: int, text: BulkText) -> str:
        nonlocal now
        usage = current_usage()
        try:
            usage.take_texts(1)
            usage.take_tokens(1)
        except QuotaExceeded as error:
            now += 15_000_000_000  # what it asks to wait for
            raise QuotaExceeded(str(error), 0.0) from None
        passed.append(number)
        return text.text

    quotas = CallerQuotas(clock=lambda: now)
    results, error = asyncio.run(trial.run(trial.texts(words(9)), answer, quotas))
    assert (len(results), error) == (9, None)
    assert passed == list(range(9))
    assert now == 5 * 15_000_000_000
    assert trial.record.num_counted_texts == trial.record.num_counted_tokens == 9
    assert not trial.record.exceeded_quota


def test_no_part_passes_the_quota_before_all_texts_of_the_last_one():
    now = 0
    trial = Trial(max_texts=64)
    trial.record.caller = Identity("key:a", quota=Quota(0, 4, 0))
    passed = []

    async def answer(number: int, text: BulkText) -> str:
        nonlocal now
        if trial.sizes[-1] > 1:
            raise QuotaExceeded("never possible", None)
        usage = current_usage()
        try:
            usage.take_texts(1)
            usage.take_tokens(1)
        except QuotaExceeded as error:
            now += 1_000_000_000
            raise QuotaExceeded(str(error), 0.0) from None
        passed.append(number)
        return text.text

    quotas = CallerQuotas(clock=lambda: now)
    results, error = asyncio.run(trial.run(trial.texts(words(24), together=24), answer, quotas))
    assert (len(results), error) == (24, None)
    assert [number // 8 for number in passed] == [0] * 8 + [1] * 8 + [2] * 8


@pytest.mark.parametrize("waits", [False, True])
def test_a_stopping_server_answers_what_was_read(waits: bool):
    trial = Trial(max_texts=3)
    may_end = asyncio.Event()

    async def answer(number: int, text: BulkText) -> str:
        await may_end.wait()
        if waits and number == 2:
            raise QuotaExceeded("later", 60.0)
        return text.text

    async def run() -> Any:
        running = asyncio.ensure_future(trial.run(trial.texts(words(9)), answer))
        await asyncio.sleep(0.01)
        trial.admission.refuse_calls()
        await asyncio.sleep(0.01)
        may_end.set()
        return await running

    results, error = asyncio.run(run())
    assert [found for _, found in results] == words(3)[: 2 if waits else 3]
    assert str(error) == "the server is stopping"
    assert trial.num_read == 3


def test_a_stream_whose_texts_have_ended_ends_well_while_the_server_stops():
    trial = Trial()

    async def answer(number: int, text: BulkText) -> str:
        await asyncio.sleep(0.01)
        trial.admission.refuse_calls()
        return text.text

    results, error = asyncio.run(trial.run(trial.texts(words(3)), answer))
    assert (len(results), error) == (3, None)


def test_a_stream_without_texts_ends_after_the_time_of_a_call():
    trial = Trial(max_request_seconds=0.05)

    async def texts() -> AsyncIterator[Sequence[BulkText]]:
        yield [BulkText("0", "a", 1)]
        await asyncio.Event().wait()

    results, error = asyncio.run(trial.run(texts(), upper))
    assert results == [("0", "A")]
    assert (type(error), str(error)) == (Unavailable, "no text was read for 0.05 seconds")


def test_the_texts_of_a_message_are_answered_in_parts_of_an_eighth_of_the_room():
    trial = Trial(max_texts=64)
    results, error = asyncio.run(trial.run(trial.texts(words(150), together=100), upper))
    assert [found for _, found in results] == [word.upper() for word in words(150)]
    assert error is None
    assert trial.sizes == [8] * 12 + [4] + [8] * 6 + [2]
    assert trial.most_running <= 64


def test_long_texts_of_a_message_are_answered_alone():
    trial = Trial(max_texts=256)
    texts = ["short", "x" * MAX_UNANSWERED_CHARACTERS, "short", "short"]
    asyncio.run(trial.run(trial.texts(texts, together=4), upper))
    assert trial.sizes == [1, 1, 2]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_of_a_part_leads_to_an_answer_to_each_of_its_texts_alone(fault: AttendantError):
    trial = Trial(max_texts=64)
    trial.record.caller = Identity("key:a", quota=Quota(0, 1000, 0))

    async def answer(number: int, text: BulkText) -> str:
        current_usage().take_texts(1)
        records.current().num_texts += 1
        if number == 9:
            raise fault
        return text.text

    quotas = CallerQuotas(clock=lambda: 0)
    results, error = asyncio.run(trial.run(trial.texts(words(20), together=20), answer, quotas))
    assert error is None
    expected: list[Any] = words(20)
    expected[9] = fault
    assert [found for _, found in results] == expected
    assert sorted(trial.sizes) == [1] * 8 + [4, 8, 8]
    assert trial.record.num_texts == 20
    # A quota gives back what a call took that it refuses.
    assert trial.record.num_counted_texts == 20 - isinstance(fault, QuotaExceeded)
    assert trial.record.num_invalid_texts == isinstance(fault, InvalidRequest)


def test_an_end_among_texts_of_a_part_that_are_answered_alone_ends_the_stream():
    trial = Trial(max_texts=64)

    async def answer(number: int, text: BulkText) -> str:
        if number == 3 and trial.sizes[-1] == 1:
            raise Unavailable("is loading")
        if number == 3:
            raise ModelFailed("the model failed")
        await asyncio.sleep(0)
        return text.text

    results, error = asyncio.run(trial.run(trial.texts(words(8), together=8), answer))
    assert (results, str(error)) == ([], "is loading")


def test_a_stopping_server_leaves_the_parts_of_a_message_for_which_there_is_no_room():
    trial = Trial(max_texts=8)
    may_end = asyncio.Event()

    async def answer(number: int, text: BulkText) -> str:
        await may_end.wait()
        return text.text

    async def run() -> Any:
        running = asyncio.ensure_future(trial.run(trial.texts(words(30), together=30), answer))
        await asyncio.sleep(0.01)
        trial.admission.refuse_calls()
        await asyncio.sleep(0.01)
        may_end.set()
        return await running

    results, error = asyncio.run(run())
    assert [found for _, found in results] == words(8)
    assert str(error) == "the server is stopping"
