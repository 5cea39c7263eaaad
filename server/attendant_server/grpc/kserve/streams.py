"""Streams of inference requests: ModelStreamInfer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from attendant_vendored.inference import grpc_service_pb2

from attendant_server.application.application import Application
from attendant_server.application.streamed_requests import one_by_one
from attendant_server.errors import AttendantError, Unavailable
from attendant_server.grpc.context import Context
from attendant_server.grpc.kserve.inference import FINAL_RESPONSE, InferenceRunner, time_limit
from attendant_server.grpc.kserve.tensors import Request, num_texts
from attendant_server.grpc.services.bulk_messages import send

STATUS_OF_ERRORS = "triton_grpc_error"
"""Key of metadata that asks for the status of an error, instead of a response with its message."""
StreamResponse = grpc_service_pb2.ModelStreamInferResponse


class InferenceStream:
    """One stream. Its requests are run at the same time, and end in their order."""

    def __init__(self, runner: InferenceRunner, application: Application, context: Context) -> None:
        self._runner, self._streams, self._context = runner, application.request_streams, context
        self._max_seconds = runner.limits.max_request_seconds
        metadata = context.invocation_metadata() or ()
        self._ends_at_errors = (STATUS_OF_ERRORS, "true") in list(metadata)
        self._writing = asyncio.Lock()
        self._unread: AttendantError | None = None
        """Why nothing can be sent any more: the caller did not read a response in time."""

    async def answer(self, requests: AsyncIterator[Request]) -> None:
        """Answer all requests of the stream."""
        stream = self._streams.begin(
            self._last_response,
            StreamResponse.ByteSize,
            self._context.time_remaining(),
            may_wait=False,
        )
        await self._context.send_initial_metadata(())
        messages = one_by_one(requests, Request.ByteSize, num_texts)
        async with aclosing(stream.results(messages)) as results:
            async for result in results:
                [item], answer = result.texts, result.answer
                if isinstance(answer, AttendantError):
                    answer = self._error_response(item.request, answer)
                await self._send(answer)

    async def _last_response(self, request: Request, seconds_left: float | None) -> StreamResponse:
        """Send all responses to a request but the last one, which is returned."""
        responses = self._runner.stream(request, seconds_left)
        async with time_limit(request), aclosing(responses):
            async for response in responses:
                found = StreamResponse(infer_response=response)
                if response.parameters[FINAL_RESPONSE].bool_param:
                    break
                await self._send(found)
        return found

    def _error_response(self, request: Request, error: AttendantError) -> StreamResponse:
        if self._ends_at_errors:
            raise error
        response = StreamResponse(error_message=str(error))
        response.infer_response.id = request.id
        response.infer_response.model_name = request.model_name
        response.infer_response.parameters[FINAL_RESPONSE].bool_param = True
        return response

    async def _send(self, response: StreamResponse) -> None:
        async with self._writing:  # the library sends one message at a time
            if self._unread is not None:  # the library would still be sending the earlier one
                raise self._unread
            try:
                await send(self._context, response, self._max_seconds)
            except Unavailable as error:
                self._unread = error
                raise
