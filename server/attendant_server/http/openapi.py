"""The OpenAPI document of the routes, from the models with which they read and answer."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from attendant_server import __version__
from attendant_server.foreign_methods import HTTP
from attendant_server.http.exchanges import Call
from attendant_server.http.json_routes import DONE, FORM, JSON, JsonRoute
from attendant_server.http.statuses import STATUSES, STATUSES_OF_CLASSES
from attendant_server.records import Method

OPENAPI = "3.1.0"
LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
SCHEMAS = "#/components/schemas/{name}"
KEY = "bearer"
CODES_OF_CALLS = (
    *("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"),
    *("UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"),
)
"""Codes with which every call of a model may fail."""
CODES_OF_CALLERS = ("UNAUTHENTICATED", "PERMISSION_DENIED")
DESCRIPTIONS = {
    400: "The request is bad; the message names the field and the limit",
    413: "The request, or a part of it, is too large",
    422: "The request is not that of the route",
    429: "The server is busy or a quota is used up; `retry-after` says when to try again",
}
_PARAMETER = re.compile(r"\{(\w+):path\}")


def document_route(routes: Sequence[JsonRoute], has_keys: bool) -> JsonRoute:
    """``/openapi.json``, which needs no credentials: it says what the software can do."""
    content = json.dumps(document(routes, has_keys), ensure_ascii=False).encode()

    async def show(request: None, call: Call) -> bytes:
        return content

    return JsonRoute(
        path="/openapi.json",
        verb="GET",
        method=Method(HTTP, "Document", "unary"),
        summary="Show this document",
        dialect=routes[-1].dialect,
        response=dict[str, Any],
        handle=show,
    )


def document(routes: Sequence[JsonRoute], has_keys: bool) -> dict[str, Any]:
    """The document; ``has_keys`` says whether calls need credentials."""
    types = [each for route in routes for each in _types(route)]
    shown, components = msgspec.json.schema_components(types, ref_template=SCHEMAS)
    schemas = dict(zip(map(id, types), shown, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.verb.lower()] = _operation(route, schemas, has_keys)
    found: dict[str, Any] = {
        "openapi": OPENAPI,
        "info": {"title": "attendant", "version": __version__, "license": LICENSE},
        "paths": paths,
        "components": {"schemas": components},
    }
    if has_keys:
        scheme = {"type": "http", "scheme": "bearer"}
        found["components"]["securitySchemes"] = {KEY: scheme}
    return found


def _types(route: JsonRoute) -> Iterator[Any]:
    for each in (route.request, route.response, route.event, route.dialect.error_type):
        if each is not None:
            yield each


def _operation(route: JsonRoute, schemas: dict[int, Any], has_keys: bool) -> dict[str, Any]:
    content = {JSON: {"schema": schemas[id(route.response)]}}
    if route.event is not None:
        kinds = [schemas[id(each)] for each in (route.event, route.dialect.error_type)]
        content["text/event-stream"] = {"schema": _event_schema(kinds)}
    operation: dict[str, Any] = {
        "operationId": f"{route.method.service.removeprefix('http.')}.{route.method.name}",
        "tags": [route.method.service.removeprefix("http.")],
        "summary": route.summary,
        "responses": {"200": {"description": "The answer", "content": content}},
    }
    if route.description:
        operation["description"] = route.description
    if route.request is not None:
        types = (JSON, FORM) if route.takes_forms else (JSON,)
        schema = {"schema": schemas[id(route.request)]}
        operation["requestBody"] = {"required": True, "content": dict.fromkeys(types, schema)}
    if route.parameters:
        operation["parameters"] = [_parameter(*each) for each in route.parameters.items()]
    error = {JSON: {"schema": schemas[id(route.dialect.error_type)]}}
    for status in sorted(set(_statuses(route, has_keys))):
        text = DESCRIPTIONS.get(status, "The call has failed")
        operation["responses"][str(status)] = {"description": text, "content": error}
    if has_keys:
        operation["security"] = [{KEY: []}] if _needs_key(route) else []
    return operation


def _parameter(name: str, text: str) -> dict[str, Any]:
    """A parameter in the path."""
    schema = {"type": "string", "minLength": 1}
    shown = {"name": name, "in": "path", "required": True}
    return {**shown, "description": text, "schema": schema}


def _event_schema(kinds: Sequence[Any]) -> dict[str, Any]:
    """The schema of one server-sent event."""
    content = {"contentMediaType": JSON, "contentSchema": {"anyOf": kinds}}
    text = {"type": "string", "anyOf": [{"const": DONE}, content]}
    return {"type": "object", "properties": {"data": text}, "required": ["data"]}


def _needs_key(route: JsonRoute) -> bool:
    return route.method.service != HTTP


def _statuses(route: JsonRoute, has_keys: bool) -> Iterable[int]:
    """The statuses of the errors of a route."""
    own = route.statuses
    if not route.method.serves_models:
        yield STATUSES["UNAVAILABLE"]
        return
    for code in (*CODES_OF_CALLS, *(CODES_OF_CALLERS * has_keys)):
        yield int(own.get(code) or STATUSES[code])
    if route.request is not None:
        for kind, status in STATUSES_OF_CLASSES.items():
            yield int(own.get(kind) or status)
