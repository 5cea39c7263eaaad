"""Admits calls through the application's `CallAdmission`.

Health checks and reflection are exempt, so that a busy server still passes health checks.
"""

from typing import Any

from attendant_server.application.admission import CallAdmission
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import Method


class AdmissionInterceptor(AroundInterceptor):
    """Applies the limits of concurrent calls and call time to the package attendant."""

    def __init__(self, admission: CallAdmission) -> None:
        super().__init__()
        self._admission = admission

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Let the application admit or refuse the call."""
        if not method.is_own:
            return await behaviour(request, context)
        return await self._admission.run(behaviour, request, context)
