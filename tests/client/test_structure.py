"""Properties of the whole client package."""

import copy
import inspect
import pickle
import re
from importlib.metadata import requires, version
from typing import get_overloads

import attendant_client
import grpc
import pytest
from attendant_client import (
    AsyncBulkResults,
    AsyncClient,
    AsyncGenerationStream,
    AsyncTranslationStream,
    AttendantError,
    BulkResults,
    Client,
    GenerationStream,
    TextError,
    TranslationStream,
    errors,
)
from attendant_client.connection import channel_options

PUBLIC_NAMES = sorted(set(attendant_client.__all__) - {"__version__"})
MODULES = {"asyncio_client", "asyncio_streams", "client", "closing", "connection", "errors"}
MODULES |= {"messages", "model_messages", "options", "parsing", "results", "retries", "streams"}
MODULES |= {"receiving"}
MODULES |= {"asyncio_embedding", "embedding", "asyncio_translation", "translation"}
MODULES |= {"calls", "model_parsing", "model_results", "sparse_vectors"}
MODULES |= {"asyncio_comparison", "comparison", "comparison_results", "comparisons"}
MODULES |= {"connection_hints", "targets", "asyncio_prediction", "prediction"}
MODULES |= {"asyncio_scoring", "scoring", "asyncio_detection", "detection"}
MODULES |= {"detection_messages", "detection_results"}
MODULES |= {"asyncio_bulk", "asyncio_bulk_results", "bulk", "bulk_calls", "bulk_input"}
MODULES |= {"bulk_results", "glossary_flags", "language_flags", "line_languages"}
MODULES |= {"embedding_messages", "embedding_parsing", "embedding_results"}
MODULES |= {"attention_messages", "attention_results"}
MODULES |= {"asyncio_generation", "generation", "generation_messages"}
MODULES |= {"generation_parsing", "generation_results"}
WITHOUT_WAITING = ("stream_translate", "stream_generate", "bulk_translate", "bulk_embed")
"""Methods whose calls begin when their results are read."""


def public_methods(cls):
    return {
        name: member
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def without_asyncio(text):
    text = text.replace(" | collections.abc.AsyncIterable[str | tuple[str, str]]", "")
    return re.sub("asyncio_|Async|async |await ", "", text)


def described_methods(cls):
    """Signature and docstring of every method and overload."""
    return {
        name: [
            (without_asyncio(str(inspect.signature(form))), without_asyncio(form.__doc__ or ""))
            for form in (*get_overloads(method), method)
        ]
        for name, method in {"__init__": cls.__init__, **public_methods(cls)}.items()
    }


def test_every_visible_name_is_exported():
    visible = {name for name in vars(attendant_client) if not name.startswith("_")}
    of_command = {"__main__", "arguments", "argument_checks", "commands", "connection_flags"}
    of_command |= {"line_commands", "line_output", "model_page", "printing", "text_commands"}
    of_command |= {"input_lines", "search_flags", "attention_command", "attention_maps"}
    of_command |= {"generation_command", "bulk_lines", "file_flags", "growing_files"}
    of_command |= {"input_files", "job_record", "jobs", "progress", "side_by_side"}
    of_command |= {"pronouns", "pronouns_command"}
    of_command |= {"attention_text", "attention_html", "attention_image", "flag_types"}
    assert visible - MODULES - of_command == set(PUBLIC_NAMES)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_is_documented(name):
    member = getattr(attendant_client, name)
    assert member.__doc__
    assert not member.__doc__.startswith(f"{name}("), "only the signature that dataclass wrote"
    for method in public_methods(member).values():
        assert inspect.getdoc(method)


@pytest.mark.parametrize(
    ("synchronous", "asynchronous"),
    [
        (Client, AsyncClient),
        (TranslationStream, AsyncTranslationStream),
        (GenerationStream, AsyncGenerationStream),
        (BulkResults, AsyncBulkResults),
    ],
)
def test_both_clients_have_the_same_methods_signatures_and_docstrings(synchronous, asynchronous):
    assert described_methods(synchronous) == described_methods(asynchronous)
    assert not any(map(inspect.iscoroutinefunction, public_methods(synchronous).values()))
    for name, method in public_methods(asynchronous).items():
        assert inspect.iscoroutinefunction(method) == (name not in WITHOUT_WAITING)


def test_every_status_code_has_an_error_class():
    assert set(errors.ERROR_BY_CODE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert set(errors.CODE_BY_NUMBER.values()) == set(grpc.StatusCode)


def test_every_error_class_is_in_the_tree_of_the_docstring_and_exported():
    classes = {
        name
        for name, member in vars(errors).items()
        if inspect.isclass(member) and issubclass(member, AttendantError)
    }
    assert errors.__doc__
    assert classes <= set(re.findall(r"\w+", errors.__doc__))
    assert classes <= set(PUBLIC_NAMES)


def test_errors_survive_pickling_and_copying():
    error = TextError("too long", grpc.StatusCode.INVALID_ARGUMENT, None, "id-7", 3)
    for twin in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert str(twin) == "text 3: too long"
        assert (twin.code, twin.index, twin.request_id) == (error.code, 3, "id-7")


def test_errors_keep_their_reasons_when_they_are_pickled_and_copied():
    code = grpc.StatusCode.INVALID_ARGUMENT
    error = errors.CallTooLargeError("many", code, 1.5, "id-7", "TOO_MANY", {"max_texts": "4"})
    for twin in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (twin.code, twin.retry_after_seconds, twin.request_id) == (code, 1.5, "id-7")
        assert (twin.reason, twin.reason_details) == ("TOO_MANY", {"max_texts": "4"})
        assert twin.max_texts == 4


@pytest.mark.parametrize(
    ("target", "proxy"),
    [
        ("localhost:50051", 0),
        ("127.0.0.1:50051", 0),
        ("[::1]:50051", 0),
        ("dns:///localhost:50051", 0),
        ("unix:/run/attendant.sock", 0),
        ("translate.example.com:443", 1),
        ("ipv4:127.0.0.1", 0),
        ("ipv4:127.0.0.2:50051,127.0.0.1:50052", 0),
        ("ipv4:127.0.0.1:50051,192.0.2.7:50051", 1),
        ("ipv6:[::1]:50051", 0),
        ("LOCALHOST:50051", 0),
        ("dns:localhost", 0),
        ("dns://192.0.2.7/localhost:50051", 0),
        ("localhost.example.com:50051", 1),
        ("127.0.0.1.example.com", 1),
    ],
)
def test_no_proxy_is_asked_for_this_machine(target, proxy):
    assert ("grpc.enable_http_proxy", proxy) in channel_options(target)


def test_version_is_the_same_in_package_and_distribution():
    assert version("attendant-client") == attendant_client.__version__
    assert requires("attendant-client")
