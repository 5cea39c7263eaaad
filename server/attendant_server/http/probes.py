"""The route of health checks, which several protocols have in common."""

from collections.abc import Callable
from typing import Literal

import msgspec

from attendant_server.errors import Unavailable
from attendant_server.foreign_methods import HTTP
from attendant_server.http.exchanges import Call
from attendant_server.http.json_routes import JsonRoute
from attendant_server.http.tei.messages import TEI_DIALECT
from attendant_server.records import Method


class Health(msgspec.Struct):
    """The answer while a model is ready."""

    status: Literal["ok"] = "ok"


def health_route(is_serving: Callable[[], bool]) -> JsonRoute:
    """``/health``, which needs no credentials; its errors have the form of TEI."""

    async def check(request: None, call: Call) -> Health:
        if not is_serving():
            raise Unavailable("no model is ready")
        return Health()

    return JsonRoute(
        path="/health",
        verb="GET",
        method=Method(HTTP, "Health", "unary"),
        summary="Tell whether a model is ready",
        dialect=TEI_DIALECT,
        response=Health,
        handle=check,
    )
