"""Admits calls through the application's `CallAdmission`, and notes their class.

Health checks and reflection are exempt, so that a busy server still passes health checks. So is
the control of models, which an operator may need then, and which may take long.
"""

import asyncio
from typing import Any

from attendant_server import records
from attendant_server.application.admission import CallAdmission
from attendant_server.application.held_memory import HeldMemory
from attendant_server.call_headers import CALL_CLASS, is_bulk
from attendant_server.callers import CONTROL_METHODS
from attendant_server.foreign_methods import INTERACTIVE_STREAMS
from attendant_server.grpc.context import Context
from attendant_server.grpc.interceptors.around import AroundInterceptor, Behaviour
from attendant_server.records import Method

CLIENT_STREAM, BIDI_STREAM = "client_stream", "bidi_stream"


class AdmissionInterceptor(AroundInterceptor):
    """Applies the limits of calls, of their time and of their memory to the methods of models.

    Requests must be bytes, and so must the answers of unary methods. Calls in both directions are
    of the class bulk unless they have another, or somebody waits for each answer.
    """

    def __init__(self, admission: CallAdmission, memory: HeldMemory) -> None:
        super().__init__()
        self._admission, self._memory = admission, memory

    async def around(
        self, method: Method, behaviour: Behaviour, request: Any, context: Context
    ) -> Any:
        """Let the application admit or refuse the call."""
        if not method.serves_models or method.operation in CONTROL_METHODS:
            return await behaviour(request, context)
        is_stream = method.type == BIDI_STREAM
        records.current().is_bulk = is_stream and method.name not in INTERACTIVE_STREAMS
        for key, value in context.invocation_metadata() or ():
            if key == CALL_CLASS:
                records.current().is_bulk = is_bulk(value)
        # A stream counts the bytes of its texts itself.
        num_bytes = 0 if method.type in (CLIENT_STREAM, BIDI_STREAM) else len(request)
        held = self._memory.hold(records.current().engine_caller.name, num_bytes)
        # The library sends the answer in the task that runs the handler.
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: held.release())
        held.make_current()
        if is_stream:
            return await self._admission.run_stream(behaviour, request, context)
        answer = await self._admission.run(behaviour, request, context)
        if answer is not None:  # a stream has no answer at its end
            held.answer(len(answer))
        return answer
