"""Every method, field and enum value of the contract can be reached from both clients."""

import asyncio
import inspect
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from attendant.v1 import (
    embedding_pb2,
    language_model_pb2,
    language_pb2,
    model_control_pb2,
    model_pb2,
    translation_pb2,
)
from attendant_client import AsyncClient, Client, Sampling, model_messages
from attendant_client.bulk_calls import BulkCall, BulkText
from grpc_health.v1 import health_pb2

SERVICES = [
    service
    for file in (
        *(translation_pb2, embedding_pb2, language_pb2, language_model_pb2),
        *(model_pb2, model_control_pb2),
    )
    for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in SERVICES
    for method in service.methods
}
NOT_SENT = {
    "attendant.v1.RerankRequest.top_k": "documents are ranked over all parts of a large call",
}
"""Fields that the clients do not send, and why."""
NOT_IN_SETTINGS = ("texts", "target_prefixes", "target_prefix_bias")
"""Fields that the settings of a bulk call must not have."""
COMMON = {"timeout_seconds", "request_id"}
TEXTS: dict[str, Any] = {
    "texts": ["a [MASK]"],
    "text": "a",
    "prompts": ["a"],
    "pairs": [("a", "b")],
    "queries": ["a"],
    "query": "a",
    "documents": ["a"],
    "name": "model",
    "service": "service",
}
"""The parameters without a default."""
VALUES: dict[str, list[dict[str, Any]]] = {
    "sampling": [
        {
            "sampling": Sampling(
                temperature=0.5, top_k=2, top_p=0.5, min_p=0.5, seed=7, first_index=3
            )
        },
    ],
    "spans": [{"unit": "spans", "spans": [[(1, 2)]]}],
    "unit": [{"unit": "words"}, {"unit": "tokens"}, {"unit": "spans", "spans": [[(1, 2)]]}],
    "target_prefix": [{"target_prefix": "b"}],
    "suppressed_texts": [{"suppressed_texts": ["b"]}],
    "stop_texts": [{"stop_texts": ["b"]}],
    "source_language": [{"source_language": "en"}],
    "target_language": [{"target_language": "de"}],
    "controls": [{"controls": {"formality": "formal"}}],
    "glossary": [{"glossary": "medical"}],
    "glossary_entries": [{"glossary_entries": {"a": "b", "c": ["d", "e"]}}],
    "languages": [{"languages": ["de"]}],
    "target": [{"target": "b"}],
    "prompt": [{"prompt": "b"}],
    "prompt_name": [{"prompt_name": "b"}],
    "query_prompt_name": [{"query_prompt_name": "b"}],
    "text_prompt_name": [{"text_prompt_name": "b"}],
    "candidates": [{"candidates": ["b"]}, {"candidates": [[["b"]]]}],
    "text_pairs": [{"text_pairs": ["b"]}],
    "model": [{"model": "b"}],
}
"""Keyword arguments for parameters whose value does not follow from its type."""


class SentError(Exception):
    """Holds a call instead of sending it."""


def sent(client: Any, name: str, options: dict[str, Any]) -> Any:
    """The call that a method would send."""
    try:
        result = getattr(client, name)(**options)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except SentError as error:
        return error.args[0]
    raise AssertionError(f"{name} sends no call")


@pytest.fixture(params=[Client, AsyncClient])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    def hold(_: Any, call: Any, *__: Any) -> None:
        raise SentError(call)

    async def hold_later(_: Any, call: Any, *__: Any) -> None:
        raise SentError(call)

    for name in ("_texts", "_call", "_stream", "_generation_stream", "_bulk"):
        is_waiting = request.param is AsyncClient and name in ("_texts", "_call")
        monkeypatch.setattr(request.param, name, hold_later if is_waiting else hold)
    return object.__new__(request.param)


def calls_of(client: Any) -> Iterator[Any]:
    """The calls of all methods, with each value of each option."""
    client._any_server = None
    for name, method in inspect.getmembers(type(client), inspect.isfunction):
        if name.startswith("_") or name == "close":
            continue
        parameters, hints = inspect.signature(method).parameters, get_type_hints(method)
        texts = {key: value for key, value in TEXTS.items() if key in parameters}
        if name == "stream_generate":
            texts["prompt"] = "a"
        if name in ("stream_translate", "translate"):
            texts["target_prefix"] = "" if "text" in parameters else [""]
        yield sent(client, name, texts)
        for option in set(parameters) - {"self", *texts, *COMMON}:
            for values in options_of(option, hints[option]):
                yield sent(client, name, texts | values)
        if "target_prefix" in parameters:
            prefix = "b" if "text" in parameters else ["b"]
            yield sent(client, name, texts | {"target_prefix": prefix})


def requests_of(call: Any) -> list[Any]:
    """The messages of a call."""
    if isinstance(call, BulkCall):
        return [call.request, call.message([BulkText(0, "id", "a")])]
    return [call.request]


def options_of(name: str, hint: Any) -> list[dict[str, Any]]:
    if name in VALUES:
        return VALUES[name]
    if get_origin(hint) in (types.UnionType, Union):
        choices = [each for each in get_args(hint) if each is not type(None)]
        return [values for each in choices for values in options_of(name, each)]
    if get_origin(hint) is Literal:
        return [{name: value} for value in get_args(hint)]
    values = {bool: True, int: 3, float: 0.5}
    return [{name: values.get(hint, [3])}]


def is_map(field: Any) -> bool:
    return bool(field.message_type.GetOptions().map_entry)


def fields_of(descriptor: Any) -> Iterator[Any]:
    """The fields of a request and of the messages in it."""
    for field in descriptor.fields:
        if field.full_name not in NOT_SENT:
            yield field
            if field.message_type is not None and not is_map(field):
                yield from fields_of(field.message_type)


def values_of(message: Any) -> Iterator[tuple[Any, Any]]:
    """Every field that is set, with each of its values."""
    for field, value in message.ListFields():
        values = (
            [value] if isinstance(value, str | bytes) or not hasattr(value, "__len__") else value
        )
        for each in values:
            yield field, each
            if field.message_type is not None and not is_map(field):
                yield from values_of(each)


def test_every_method_of_the_contract_has_a_call_with_its_messages(client):
    found = {
        call.method: (call.request.DESCRIPTOR, call.response_type.DESCRIPTOR)
        for call in calls_of(client)
    }
    expected = {name: (each.input_type, each.output_type) for name, each in METHODS.items()}
    health = model_messages.health("")
    check = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
    assert health.method == f"/{check.containing_service.full_name}/{check.name}"
    assert found == expected | {health.method: (check.input_type, check.output_type)}


def test_every_field_and_every_choice_of_a_request_can_be_sent(client):
    of_methods: dict[str, set[tuple[str, Any]]] = {}
    for call in calls_of(client):
        of_methods.setdefault(call.method, set()).update(
            (field.full_name, value if field.enum_type else None)
            for request in requests_of(call)
            for field, value in values_of(request)
        )
    for name, method in METHODS.items():
        for field in fields_of(method.input_type):
            if method.client_streaming and field.name in NOT_IN_SETTINGS:
                continue
            if field.enum_type is None:
                assert (field.full_name, None) in of_methods[name]
                continue
            reached = {
                value for full_name, value in of_methods[name] if full_name == field.full_name
            }
            missing = set(field.enum_type.values_by_number) - {0} - reached
            assert not missing, f"{name}: {field.name} never has the values {missing}"
