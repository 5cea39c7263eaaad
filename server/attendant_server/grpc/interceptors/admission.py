"""Admits calls through the application's `CallAdmission`, and notes their class.

Health checks and reflection are exempt, so that a busy server still passes health checks. So is
the control of models, which an operator may need then, and which may take long.
"""

from typing import Any

from attendant_server import records
from attendant_server.application.admission import CallAdmission
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import Method

CALL_CLASS = "attendant-class"
"""Key of the metadata with the class of a call."""
MODEL_CONTROL = "attendant.v1.ModelControlService"
INTERACTIVE, BULK = "interactive", "bulk"


class AdmissionInterceptor(AroundInterceptor):
    """Applies the limits of concurrent calls and call time to the package attendant."""

    def __init__(self, admission: CallAdmission) -> None:
        super().__init__()
        self._admission = admission

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Let the application admit or refuse the call."""
        if not method.is_own or method.service == MODEL_CONTROL:
            return await behaviour(request, context)
        for key, value in context.invocation_metadata() or ():
            if key == CALL_CLASS:
                records.current().is_bulk = _is_bulk(value)
        return await self._admission.run(behaviour, request, context)


def _is_bulk(value: str | bytes) -> bool:
    if value not in (INTERACTIVE, BULK):
        raise InvalidRequest(CALL_CLASS, f"must be {INTERACTIVE} or {BULK}")
    return value == BULK
