"""Servers give the recorded answers, and the comparison detects differences."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from attendant_export.bundle.upgrade import upgrade_bundle
from google.protobuf.message import Message

from tests.recorded.__main__ import recorded
from tests.recorded.call import METHODS
from tests.recorded.json_text import dumped
from tests.recorded.recording import FOLDER, Recording, read_recording, report
from tests.recorded.replay import installed_server
from tests.recorded.servers import SERVERS, RecordedServer

HERE = {"processor": {"name": "one"}, "packages": {"onnxruntime": "1", "numpy": "2"}}
ELSEWHERE = {**HERE, "processor": {"name": "another"}}
BOUND = 0.01
WITH_VERSION_1 = [
    server
    for server in SERVERS
    if not server.name.startswith(("built-in", "tiny-classifier", "tiny-splade", "tiny-language"))
]
"""The servers of bundles with manifests of version 1."""
CALLS = [call for server in SERVERS for call in server.calls]
UNSENT_FIELDS = {
    "grpc.reflection.v1alpha": "only the list of services and one symbol are asked for",
}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_every_call_gets_the_recorded_answer(server: RecordedServer):
    expected = read_recording(FOLDER / f"{server.name}.json")
    text = report(expected, recorded(server, installed_server()), server.bound)
    if text:
        pytest.fail(f"{server.name}: {text}", pytrace=False)


def upgraded(server: RecordedServer) -> RecordedServer:
    """The same server on copies of its bundles with manifests of version 2."""

    def write_bundles(folder: Path) -> Path:
        copies = Path(shutil.copytree(server.write_bundles(folder), folder / "upgraded"))
        for manifest in copies.glob("*/*/manifest.json"):
            upgrade_bundle(manifest.parent)
            assert json.loads(manifest.read_text(encoding="utf-8"))["manifest_version"] == 2
        return copies

    return dataclasses.replace(server, write_bundles=write_bundles)


@pytest.mark.parametrize("server", WITH_VERSION_1, ids=lambda server: server.name)
def test_bundles_of_both_versions_of_the_manifest_give_the_same_answers(server: RecordedServer):
    expected = read_recording(FOLDER / f"{server.name}.json")
    text = report(expected, recorded(upgraded(server), installed_server()), server.bound)
    if text:
        pytest.fail(f"{server.name}: {text}", pytrace=False)


def test_every_recording_has_a_server():
    assert {path.stem for path in FOLDER.iterdir()} == {server.name for server in SERVERS}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_every_call_of_a_server_has_a_name_of_its_own(server: RecordedServer):
    names = [call.name for call in server.calls]
    assert [name for name in names if names.count(name) > 1] == []


def test_every_method_is_called():
    assert METHODS.keys() <= {call.method for call in CALLS}


def fields_of(descriptor: Any) -> set[str]:
    """Full names of the fields of a message and of the messages in it."""
    names = set()
    for field in descriptor.fields:
        names.add(field.full_name)
        if field.message_type is not None and not is_map(field):
            names |= fields_of(field.message_type)
    return names


def is_map(field: Any) -> bool:
    return bool(field.message_type.GetOptions().map_entry)


def set_fields_of(message: Message) -> set[str]:
    names = set()
    for field, value in message.ListFields():
        names.add(field.full_name)
        if field.message_type is not None and not is_map(field):
            for part in [value] if isinstance(value, Message) else value:
                names |= set_fields_of(part)
    return names


def test_every_field_of_every_request_is_set_by_some_call():
    wanted = {
        name
        for path, method in METHODS.items()
        if not path.startswith(tuple(UNSENT_FIELDS))
        for name in fields_of(method.input_type)
    }
    sent = (request for call in CALLS for request in (call.request, *call.further))
    requests = [request for request in sent if isinstance(request, Message)]
    assert wanted - set().union(*map(set_fields_of, requests)) == set()


def example() -> Any:
    """One real answer of each kind, by call name."""
    answers = read_recording(FOLDER / "tiny-int8.json").answers
    names = (
        "Translate: tiny-en-de beam 4",
        "Embed: tiny-bert one text",
        "StreamTranslate: tiny-en-de empty",
    )
    return {name: answers[name] for name in names}


def translation(answers: Any) -> Any:
    return answers["Translate: tiny-en-de beam 4"]["messages"][0]["translations"][0]


def tensor(answers: Any) -> Any:
    return answers["Embed: tiny-bert one text"]["messages"][0]["embeddings"]


def change_a_letter(answers: Any) -> None:
    hypothesis = translation(answers)["hypotheses"][0]
    hypothesis["text"] = hypothesis["text"].replace("Hund", "Hand")


def change_the_last_digit(answers: Any) -> None:
    translation(answers)["hypotheses"][0]["score"] *= 1 + 1e-7


def change_a_token(answers: Any) -> None:
    translation(answers)["hypotheses"][0]["tokens"][0][0] += 1


def change_a_count(answers: Any) -> None:
    translation(answers)["num_source_tokens"] += 1


def change_a_hash(answers: Any) -> None:
    tensor(answers)["sha256"] = "0" * 64


def change_a_value(answers: Any) -> None:
    tensor(answers)["values"][3] += 2 * BOUND


def change_a_number_slightly(answers: Any) -> None:
    tensor(answers)["values"][3] += BOUND / 2


def change_a_message(answers: Any) -> None:
    answers["StreamTranslate: tiny-en-de empty"]["message"] += "."


def lose_a_field(answers: Any) -> None:
    del translation(answers)["hypotheses"][0]["finish_reason"]


def lose_an_answer(answers: Any) -> None:
    del answers["Embed: tiny-bert one text"]


def add_an_answer(answers: Any) -> None:
    answers["another"] = {"code": "OK"}


def add_a_hypothesis(answers: Any) -> None:
    hypotheses = translation(answers)["hypotheses"]
    hypotheses.append(hypotheses[0])


LARGE_CHANGES = {
    change_a_letter: "translations[0].hypotheses[0].text",
    change_a_token: "translations[0].hypotheses[0].tokens[0][0]",
    change_a_count: "translations[0].num_source_tokens",
    change_a_value: "embeddings.values[3]",
    change_a_message: "message",
    lose_a_field: "translations[0].hypotheses[0].finish_reason: nothing instead of",
    lose_an_answer: "Embed: tiny-bert one text\n  is recorded, but was not sent",
    add_an_answer: "another\n  is not recorded",
    add_a_hypothesis: "hypotheses: 2 values instead of 1",
}
SMALL_CHANGES = {
    change_the_last_digit: "translations[0].hypotheses[0].score",
    change_a_hash: "embeddings.sha256",
    change_a_number_slightly: "embeddings.values[3]",
}


def changed(change: Any, surroundings: Any) -> str:
    found = copy.deepcopy(example())
    change(found)
    assert dumped(found) != dumped(example())
    return report(Recording(HERE, example()), Recording(surroundings, found), BOUND)


@pytest.mark.parametrize("surroundings", [HERE, ELSEWHERE], ids=["here", "elsewhere"])
def test_the_same_answers_are_not_reported(surroundings: Any):
    found = Recording(surroundings, example())
    assert report(Recording(HERE, example()), found, BOUND) == ""


@pytest.mark.parametrize("change", [*LARGE_CHANGES, *SMALL_CHANGES])
def test_on_the_same_kind_of_processor_every_change_is_reported(change: Any):
    text = changed(change, HERE)
    assert text.startswith("1 of 3 calls are answered differently, compared bit by bit\n")
    assert (LARGE_CHANGES | SMALL_CHANGES)[change] in text


@pytest.mark.parametrize("change", LARGE_CHANGES)
def test_on_another_kind_of_processor_large_changes_are_reported(change: Any):
    text = changed(change, ELSEWHERE)
    assert 'processor.name: "another" instead of "one"' in text
    assert LARGE_CHANGES[change] in text


@pytest.mark.parametrize("change", SMALL_CHANGES)
def test_on_another_kind_of_processor_last_bits_are_not_reported(change: Any):
    assert changed(change, ELSEWHERE) == ""


def test_another_release_of_onnx_runtime_counts_as_another_kind_of_processor():
    packages = {**HERE["packages"], "onnxruntime": "3"}
    assert changed(change_a_hash, {**HERE, "packages": packages}) == ""


def test_a_float_that_is_zero_elsewhere_may_be_absent():
    expected = Recording(HERE, {"call": {"score": 1e-9}})
    assert report(expected, Recording(ELSEWHERE, {"call": {}}), BOUND) == ""
    assert report(expected, Recording(HERE, {"call": {}}), BOUND) != ""


def test_a_recording_is_read_as_it_was_written(tmp_path):
    recording = Recording(HERE, {"call": {"text": "\u200b\x00é\U0010ffff", "numbers": [0.1] * 99}})
    recording.save(tmp_path / "recording.json")
    assert read_recording(tmp_path / "recording.json") == recording
    content = (tmp_path / "recording.json").read_text(encoding="utf-8")
    assert content.replace("\n", "").isprintable()
    assert max(map(len, content.splitlines())) <= 100
