import pytest
from attendant_server.application.held_memory import (
    HELD_BYTES_PER_TOKEN,
    HeldMemory,
    current_hold,
)
from attendant_server.errors import QueueFull
from hypothesis import given
from hypothesis import strategies as st

CHANGES = st.tuples(
    st.sampled_from(["hold", "answer", "release"]),
    st.integers(0, 3),
    st.sampled_from(["a", "b"]),
    st.integers(0, 200),
)


@given(st.lists(CHANGES, max_size=60))
def test_callers_hold_what_their_calls_hold_and_nothing_is_left(changes):
    refused: list[str] = []
    memory = HeldMemory(100, 3, refused.append)
    calls, sizes, answered = {}, {}, set()
    for what, number, caller, size in changes:
        try:
            if what == "hold" and number not in calls:
                calls[number], sizes[number] = memory.hold(caller, size), size
            elif what == "answer" and number in calls and number not in answered:
                calls[number].answer(size)
                sizes[number] = size
                answered.add(number)
            elif what == "release" and number in calls:
                calls.pop(number).release()
                del sizes[number]
                answered.discard(number)
        except QueueFull:
            pass  # and nothing has changed
        assert memory.num_bytes == sum(sizes.values())
        assert memory.num_unread_answers == len(answered)
        assert sum(sizes.values()) <= 100 or len([size for size in sizes.values() if size]) == 1
    assert set(refused) <= {"memory"}
    for call in calls.values():
        call.release()
    assert memory.num_bytes == memory.num_unread_answers == 0
    assert not memory._of_callers


def test_a_caller_leaves_a_quarter_of_the_free_bytes_to_others():
    refused: list[str] = []
    memory = HeldMemory(100, 8, refused.append)
    memory.hold("a", 50)
    memory.hold("a", 25)
    with pytest.raises(QueueFull, match=r"hold 75 bytes and 1 more would exceed its limit of 75: "):
        memory.hold("a", 1)
    memory.hold("b", 18)
    with pytest.raises(QueueFull, match=r"hold 18 bytes and 1 more would exceed its limit of 18"):
        memory.hold("b", 1)
    assert refused == ["memory", "memory"]


def test_a_call_alone_may_hold_more_than_the_limit():
    memory = HeldMemory(10, 8, print)
    held = memory.hold("a", 1000)
    held.answer(2000)
    held.release()
    assert memory.num_bytes == 0


def test_an_answer_that_is_too_large_beside_others_is_refused_and_its_request_still_held():
    memory = HeldMemory(100, 8, print)
    memory.hold("a", 20)
    held = memory.hold("b", 10)
    with pytest.raises(QueueFull):
        held.answer(61)
    assert memory.num_bytes == 30
    held.answer(60)
    held.release()
    assert memory.num_bytes == 20


def test_no_call_begins_while_too_many_answers_are_unread():
    memory = HeldMemory(100, 1, print)
    held = memory.hold("a", 1)
    held.answer(1)
    with pytest.raises(QueueFull, match="^1 answers have not been read by their"):
        memory.hold("b", 1)
    held.release()
    memory.hold("b", 1)


def test_tokens_are_held_with_the_bytes_of_their_call():
    memory = HeldMemory(100 * HELD_BYTES_PER_TOKEN, 8, print)
    memory.hold("b", 10)
    held = memory.hold("a", 10)
    held.hold_tokens(70)
    with pytest.raises(QueueFull, match="of this caller hold"):
        held.hold_tokens(10)
    held.hold_tokens(-20)
    assert memory.num_bytes == 20 + 50 * HELD_BYTES_PER_TOKEN
    held.answer(5)
    assert memory.num_bytes == 15


def test_a_part_of_a_stream_holds_its_tokens_until_its_end_and_is_not_refused():
    memory = HeldMemory(100, 8, print)
    stream = memory.hold("a", 10)
    stream.make_current()
    with stream.part():
        current_hold().hold_tokens(1000)
        assert memory.num_bytes == 10 + 1000 * HELD_BYTES_PER_TOKEN
    assert memory.num_bytes == 10
    assert current_hold() is stream
