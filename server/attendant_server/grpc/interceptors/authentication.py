"""Finds out who calls, and refuses callers without valid credentials or permission.

The health service is exempt. Reflection needs authentication, but no permission.
"""

from typing import Any

from attendant_server import records
from attendant_server.application.operations import begin_operation
from attendant_server.call_headers import AUTHORIZATION
from attendant_server.callers import Identity
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import Method
from attendant_server.security.authentication import Authenticator, caller_of_certificate

HEALTH = "grpc.health.v1.Health"


class AuthenticationInterceptor(AroundInterceptor):
    """Notes the caller in the call's record, or refuses the call."""

    def __init__(self, authenticator: Authenticator | None) -> None:
        """Without an authenticator, the caller is the one of the connection's certificate."""
        super().__init__()
        self._authenticator = authenticator

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Authenticate the caller and check the method; `Catalog` checks the model."""
        if method.service != HEALTH:
            records.current().caller = await self._caller(context)
            if operation := method.operation:
                begin_operation(operation)
        return await behaviour(request, context)

    async def _caller(self, context: Context) -> Identity:
        if self._authenticator is None:
            return caller_of_certificate(_certificate_name(context))
        metadata = context.invocation_metadata() or ()
        return await self._authenticator.caller(
            [value for key, value in metadata if key == AUTHORIZATION]
        )


def _certificate_name(context: Context) -> str:
    """The common name in the caller's certificate, or else its first alternative name."""
    found = context.auth_context()
    for field in ("x509_common_name", "x509_subject_alternative_name"):
        for value in found.get(field, ()):
            return str(value.decode(errors="replace"))
    return ""
