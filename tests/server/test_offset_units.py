"""Offsets in code points, UTF-8 bytes and UTF-16 units."""

import pytest
from attendant.v1 import embedding_pb2, language_model_pb2, model_pb2, text_pb2, translation_pb2
from attendant_server.application.offset_units import OffsetUnit, TextOffsets
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("aé€🐶\u0301")))
BYTES = {OffsetUnit.UTF8_BYTES: ("utf-8", 1), OffsetUnit.UTF16_UNITS: ("utf-16-le", 2)}
FILES = (embedding_pb2, language_model_pb2, model_pb2, text_pb2, translation_pb2)


@given(TEXT, st.sampled_from(list(BYTES)))
def test_an_offset_is_the_length_of_the_encoded_text_before_it(text, unit):
    encoding, size = BYTES[unit]
    offsets = TextOffsets(text, unit)
    expected = [len(text[:i].encode(encoding)) // size for i in range(len(text) + 1)]
    assert [offsets.in_unit(i) for i in range(len(text) + 1)] == expected
    assert offsets.length == expected[-1]
    found = [offsets.in_code_points(i) for i in range(offsets.length + 1)]
    assert found == [expected.index(i) if i in expected else None for i in range(len(found))]


@given(TEXT)
def test_offsets_in_code_points_stay_as_they_are(text):
    offsets = TextOffsets(text, OffsetUnit.CODE_POINTS)
    assert offsets.length == len(text)
    for i in range(len(text) + 1):
        assert offsets.in_unit(i) == offsets.in_code_points(i) == i


NEVER_SENT = {"Similarity": "attendant.v1.EmbedChunk"}
"""Messages that the answers of a method can hold and never do."""


def reached(message, seen=frozenset()):
    """The messages that a message has, itself included."""
    if message.full_name in seen:
        return
    yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from reached(field.message_type, seen | {message.full_name})


METHODS = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_requests_choose_the_unit_if_they_or_their_answers_have_offsets(method):
    names = {
        field.name
        for message in (*reached(method.input_type), *reached(method.output_type))
        if message.full_name != NEVER_SENT.get(method.name)
        for field in message.fields
        if field.name.endswith(("start", "end")) and field.type != field.TYPE_BOOL
    }
    assert names <= {"start", "end", "source_start", "source_end", "target_start", "target_end"}
    request = method.input_type
    if method.client_streaming:
        request = request.fields_by_name["settings"].message_type
    assert ("offset_unit" in request.fields_by_name) == bool(names)
