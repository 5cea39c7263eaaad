"""Valid calls of ModelService and LanguageService, health and reflection."""

from collections.abc import Iterator, Sequence

from attendant.v1.model_pb2 import TEXT_SIDE_SOURCE, TEXT_SIDE_TARGET, TEXT_SIDE_UNSPECIFIED
from attendant.v1.text_pb2 import OFFSET_UNIT_UTF8_BYTES, TEXT_NORMALIZATION_NONE
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.recorded.call import (
    REQUEST_ID,
    Call,
    detect_language,
    get_attention,
    get_model,
    list_models,
    tokenize,
)
from tests.recorded.texts import BLANK, ENGLISH, GERMAN, LONG, ODD

SERVICES = ("TranslationService", "EmbeddingService", "LanguageService", "ModelService")
SIDES = {
    "unspecified": TEXT_SIDE_UNSPECIFIED,
    "source": TEXT_SIDE_SOURCE,
    "target": TEXT_SIDE_TARGET,
}


def description_calls(models: Sequence[str]) -> Iterator[Call]:
    """Calls for the descriptions of models."""
    yield list_models()
    for model in models:
        yield get_model(model, model)


def tokenize_calls(model: str, sides: Sequence[str]) -> Iterator[Call]:
    """Unusual texts on each side of the model."""
    for side in sides:
        yield tokenize(f"{model} side {side}", [ODD["digits"], ""], model, side=SIDES[side])
    yield tokenize(f"{model} odd texts", [*BLANK.values(), *ODD.values()], model)
    yield tokenize(f"{model} a long text", [LONG[:350]], model)


def detection_calls() -> Iterator[Call]:
    """Texts in several languages, and in none."""
    texts = [*ENGLISH, *GERMAN, *BLANK.values(), *ODD.values()]
    yield detect_language("all languages", texts)
    yield detect_language("three of three", texts, languages=["en", "de-AT", "fr"], max_results=3)
    yield detect_language("more than there are", GERMAN, languages=["de", "DE"], max_results=9)
    yield detect_language("a long text", [LONG[:350]], max_results=2)


def attention_calls(pair: str, embedding: str) -> Iterator[Call]:
    """The attention of a model for pairs, from English to German, and of an embedding model."""
    text, target = "The dog sees the king.", "Der Hund sieht den König."
    yield get_attention("the model's own translation", text, pair)
    yield get_attention("a given translation", text, pair, target=target)
    yield get_attention(
        "other options",
        text,
        pair,
        target=target,
        source_language="en",
        target_language="de-AT",
        text_normalization=TEXT_NORMALIZATION_NONE,
        offset_unit=OFFSET_UNIT_UTF8_BYTES,
    )
    yield get_attention("an embedding model", text, embedding)
    yield get_attention("a target of an embedding model", text, embedding, target=target)
    yield get_attention("a text that is too long", "dog " * 130, pair)
    yield get_attention("an empty target", text, pair, target="")


def health_calls() -> Iterator[Call]:
    """Check, and the first message of Watch, for every service name."""
    own = [f"attendant.v1.{name}" for name in SERVICES]
    for service in ["", *own, "attendant.v1.Nothing", "grpc.health.v1.Health"]:
        request = health_pb2.HealthCheckRequest(service=service)
        yield Call(f"Check: {service or 'the server'}", "grpc.health.v1.Health/Check", request)
        yield Call(
            f"Watch: {service or 'the server'}",
            "grpc.health.v1.Health/Watch",
            request,
            max_messages=1,
        )


def reflection_calls() -> Iterator[Call]:
    """The list of services from reflection, and a request that it cannot answer."""
    method = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    wanted = {
        "list of services": reflection_pb2.ServerReflectionRequest(list_services=""),
        "unknown symbol": reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="attendant.v1.Nothing"
        ),
    }
    for name, request in wanted.items():
        yield Call(f"Reflection: {name}", method, request)


def metadata_calls(model: str) -> Iterator[Call]:
    """Calls with request ids of several forms."""
    request, method = get_model("", model).request, get_model("", model).method
    trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    for name, metadata in {
        "none": (),
        "of all characters": ((REQUEST_ID, "aZ09_.:/+=-"),),
        "too long": ((REQUEST_ID, "a" * 129),),
        "with a space": ((REQUEST_ID, "two words"),),
        "beside a trace": ((REQUEST_ID, "traced"), trace),
    }.items():
        yield Call(f"Request id: {name}", method, request, metadata)
