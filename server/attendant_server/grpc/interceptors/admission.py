"""Admits calls through the application's `CallAdmission`.

Health checks and reflection are exempt, so that a busy server still says that it lives.
"""

from typing import Any

from attendant_server.application.admission import CallAdmission
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour, Context
from attendant_server.records import Method


class AdmissionInterceptor(AroundInterceptor):
    """Bounds the calls in progress of the package attendant, and the time of each."""

    def __init__(self, admission: CallAdmission) -> None:
        super().__init__()
        self._admission = admission

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Let the application admit the call, or refuse it."""
        if not method.is_own:
            return await behaviour(request, context)
        return await self._admission.run(behaviour, request, context)
