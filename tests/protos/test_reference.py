"""docs/api.md, which `make protos` writes; `make check` compares it with the comments."""

import re
from pathlib import Path

import pytest
from attendant.v1 import (
    embedding_pb2,
    language_pb2,
    model_control_pb2,
    model_pb2,
    text_pb2,
    translation_pb2,
)
from google.protobuf.descriptor import FieldDescriptor

from protos.write_reference import split_comment

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
FILES = [module.DESCRIPTOR for module in (translation_pb2, embedding_pb2, model_pb2, text_pb2)]
FILES += [language_pb2.DESCRIPTOR, model_control_pb2.DESCRIPTOR]
METHODS = [m for file in FILES for s in file.services_by_name.values() for m in s.methods]


def section(heading: str) -> str:
    return re.split(rf"^#+ {heading}$", PAGE, flags=re.MULTILINE)[1].split("\n#")[0]


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of the table of a section, by the name in the first column."""
    lines = re.findall(r"^\| `(\w+)` \| (.*) \|$", section(heading), re.MULTILINE)
    return {name: re.split(r" ?(?<!\\)\| ?", rest) for name, rest in lines}


REQUESTS = [*(m.input_type for m in METHODS), translation_pb2.TranslateOptions.DESCRIPTOR]
OPTIONS = [
    (message.name, field)
    for message in REQUESTS
    for field in message.fields
    # An optional field is alone in its oneof. Fields that exclude each other are no options.
    if field.containing_oneof is None or len(field.containing_oneof.fields) == 1
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_method_names_its_messages(method):
    found = section(method.name)
    assert f"`{method.containing_service.full_name}/{method.name}`" in found
    for message in (method.input_type, method.output_type):
        assert f"[{message.name}](#{message.name.lower()})" in found
    assert ("takes stream" in found) == method.client_streaming
    assert ("returns stream" in found) == method.server_streaming


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_field_and_every_value_of_an_enum_has_a_row_with_a_comment(file):
    for message in file.message_types_by_name.values():
        found = rows(message.name)
        assert list(found) == [field.name for field in message.fields]
        assert all(cells[1] for cells in found.values()), message.name
    for enum in file.enum_types_by_name.values():
        found = rows(enum.name)
        assert {n: int(c[0]) for n, c in found.items()} == {v.name: v.number for v in enum.values}
        assert all(cells[1] for cells in found.values()), enum.name


@pytest.mark.parametrize(
    ("message", "field"), OPTIONS, ids=lambda each: getattr(each, "name", each)
)
def test_an_option_of_a_request_has_a_default(message: str, field: FieldDescriptor):
    is_option = field.has_presence or field.enum_type or field.type == FieldDescriptor.TYPE_BOOL
    _, meaning, default, _ = rows(message)[field.name]
    assert meaning
    assert default or not is_option


def test_headings_differ_and_every_link_within_the_page_leads_to_one():
    anchors = [heading.lower().replace(" ", "-") for heading in HEADINGS]
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\]\(#(.*?)\)", PAGE)) <= set(anchors)


@pytest.mark.parametrize(
    ("comment", "columns"),
    [
        ("The texts.", ("The texts.", "", "")),
        (
            "Candidates. Default 5. 0 is INVALID_ARGUMENT.",
            ("Candidates.", "5", "0 is INVALID_ARGUMENT."),
        ),
        (
            "What to do. Default: refuse it. More text.",
            ("What to do. More text.", "Refuse it.", ""),
        ),
        ("Options. Absent: all defaults.", ("Options.", "All defaults.", "")),
        ("A name. Required.", ("A name.", "", "Required.")),
        ("Tokens, 3 .. 5. Must be finite.", ("Tokens, 3 .. 5.", "", "Must be finite.")),
    ],
)
def test_defaults_and_limits_have_columns_of_their_own(comment: str, columns: tuple[str, str, str]):
    assert split_comment(comment) == columns
