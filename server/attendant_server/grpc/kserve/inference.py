"""Runs inference requests: finds the task, sets its options, and writes its outputs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

from attendant_vendored.inference import grpc_service_pb2
from google.protobuf.message import Message

from attendant_server.application.application import Application
from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.operations import begin_operation
from attendant_server.errors import DeadlineExceeded, InvalidRequest, Unsupported
from attendant_server.grpc.kserve.decoding_tasks import GenerateTask, TranslateTask
from attendant_server.grpc.kserve.embedding_tasks import (
    ClassifyTask,
    EmbedTask,
    RerankTask,
    SparseTask,
)
from attendant_server.grpc.kserve.parameters import Parameters, set_parameters, value_of
from attendant_server.grpc.kserve.tasks import TEXT, Task, TaskResult, chosen_task
from attendant_server.grpc.kserve.tensors import (
    Request,
    Response,
    TextTensor,
    read_inputs,
    requested_outputs,
    write_outputs,
)
from attendant_server.grpc.services.bulk_messages import MAX_ID_CHARACTERS

TASKS: Sequence[Task] = (
    TranslateTask(),
    GenerateTask(),
    ClassifyTask(),
    RerankTask(),
    SparseTask(),
    EmbedTask(),
)
"""In order of preference for a model that can do several."""

STREAM, TIMEOUT = "stream", "timeout"
EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
"""Asks for a last response without outputs; the last one here always has some."""
FINAL_RESPONSE = "triton_final_response"
SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
MAX_PARAMETERS = 256
"""A limit on what is read on the event loop; the tasks have fewer than 64."""
CHARACTERS_OF_JOB = 16
"""Characters of parameters that are read in the time in which a token is written."""


class _Inference(NamedTuple):
    """A checked request."""

    task: Task
    texts: Mapping[str, TextTensor]
    wanted: Sequence[str]
    """Names of the outputs; empty for all."""
    message: Any
    seconds_left: float | None
    request: Request
    is_streamed: bool

    def response(self, result: TaskResult, is_final: bool | None = None) -> Response:
        """The response with the outputs of a result; ``is_final`` in streams only."""
        name, _, version = result.model.partition("/")
        response = Response(model_name=name, model_version=version, id=self.request.id)
        for fact, value in result.parameters.items():
            response.parameters[fact].int64_param = value
        if is_final is not None:
            response.parameters[FINAL_RESPONSE].bool_param = is_final
        if missing := [name for name in self.wanted if name not in result.outputs]:
            problem = f"{missing[0]} is not among the outputs of a request with these parameters"
            raise InvalidRequest("outputs", problem)
        outputs = {name: result.outputs[name] for name in self.wanted or result.outputs}
        is_raw = bool(self.request.raw_input_contents)
        write_outputs(response, outputs, self.texts[TEXT].is_column, is_raw)
        return response


def main_task(model: ModelDescription) -> Task:
    """The task of requests that name no outputs."""
    return next(task for task in TASKS if task.fits(model))


def model_key(name: str, version: str) -> str:
    """The model of a request, ``name`` or ``name/version``; raises InvalidRequest."""
    if not name:
        raise InvalidRequest("model_name", "must name a model")
    return f"{name}/{version}" if version else name


class InferenceRunner:
    """Runs inference requests to all models."""

    def __init__(self, application: Application) -> None:
        self._application, self._jobs = application, application.jobs
        self.limits = application.models.limits
        """The limits of requests to any model."""

    async def infer(self, request: Request, seconds_left: float | None) -> Response:
        """The only response to a request outside of streams."""
        async with time_limit(request):
            inference = await self._prepare(request, seconds_left, may_stream=False)
            return await self._run(inference, None)

    async def stream(
        self, request: Request, seconds_left: float | None
    ) -> AsyncGenerator[Response, None]:
        """The responses to a request in a stream: one, or several if it asks for that.

        Reading them is the block of a `time_limit`.
        """
        inference = await self._prepare(request, seconds_left, may_stream=True)
        if not inference.is_streamed:
            yield await self._run(inference, True)
            return
        [text] = inference.texts[TEXT].texts
        task, seconds = inference.task, inference.seconds_left
        try:
            pieces = task.stream(self._application, inference.message, text, seconds)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield inference.response(piece, piece.is_last)
        except InvalidRequest as error:
            raise task.renamed(error) from None

    async def _run(self, inference: _Inference, is_final: bool | None) -> Response:
        task = inference.task
        texts = {name: tensor.texts for name, tensor in inference.texts.items()}
        try:
            result = await task.run(
                self._application, inference.message, texts, inference.seconds_left
            )
        except InvalidRequest as error:
            raise task.renamed(error) from None
        return await self._jobs.run_for(result.size, lambda: inference.response(result, is_final))

    async def _prepare(
        self, request: Request, seconds_left: float | None, may_stream: bool
    ) -> _Inference:
        if (num_characters := len(request.id)) > MAX_ID_CHARACTERS:  # each response repeats it
            problem = f"at most {MAX_ID_CHARACTERS} characters, got {num_characters}"
            raise InvalidRequest("id", problem)
        if (num_parameters := len(request.parameters)) > MAX_PARAMETERS:
            problem = f"at most {MAX_PARAMETERS} parameters, got {num_parameters}"
            raise InvalidRequest("parameters", problem)
        key = model_key(request.model_name, request.model_version)
        model = self._application.models.find(key)
        texts = read_inputs(request, self.limits)
        wanted = requested_outputs(request)
        task = chosen_task(TASKS, model, texts.keys(), wanted)
        parameters = dict(request.parameters)
        is_streamed = may_stream and _takes_stream(task, texts, parameters)
        begin_operation(task.stream_operation if is_streamed else task.operation)
        _check_unsupported(parameters)
        parameters.pop(TIMEOUT, None)
        message: Any = task.stream_message() if is_streamed else task.message()
        await self._set(message, parameters, task.hidden)
        message.model = model.key
        return _Inference(task, texts, wanted, message, seconds_left, request, is_streamed)

    async def _set(self, message: Message, parameters: Parameters, hidden: Collection[str]) -> None:
        num_characters = sum(len(each.string_param) for each in parameters.values())
        await self._jobs.run_for(
            num_characters // CHARACTERS_OF_JOB,
            lambda: set_parameters(message, parameters, hidden),
        )


def _takes_stream(
    task: Task,
    texts: Mapping[str, TextTensor],
    parameters: dict[str, grpc_service_pb2.InferParameter],
) -> bool:
    """Take the parameters of streams; returns whether a request wants several responses."""
    parameters.pop(EMPTY_FINAL_RESPONSE, None)
    if STREAM not in parameters:
        return False
    wanted = value_of(STREAM, parameters.pop(STREAM))
    if not isinstance(wanted, bool):
        raise InvalidRequest(STREAM, "must be true or false")
    if not wanted:
        return False
    if not task.stream_operation:
        raise InvalidRequest(STREAM, "is for models that write text")
    if (num_texts := len(texts[TEXT].texts)) != 1:
        raise InvalidRequest(STREAM, f"is for one text, got {num_texts}")
    return True


def _check_unsupported(parameters: Parameters) -> None:
    """Raise Unsupported for parameters of Triton that no model here has a use for."""
    for name in SEQUENCES:
        if name in parameters:
            raise Unsupported(f"{name}: models keep nothing from one request to the next")
    if "priority" in parameters:
        raise Unsupported("priority: there are none; the metadata attendant-class has the class")


@asynccontextmanager
async def time_limit(request: Request) -> AsyncIterator[None]:
    """End the block as the parameter ``timeout`` of a request says.

    Raises DeadlineExceeded then, and InvalidRequest for a bad value.
    """
    seconds = _timeout(request.parameters)
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded(f"{TIMEOUT}: the request took {seconds:g} seconds") from None


def _timeout(parameters: Parameters) -> float | None:
    """The parameter ``timeout``, in seconds instead of microseconds; None for no limit."""
    if TIMEOUT not in parameters:
        return None
    microseconds = value_of(TIMEOUT, parameters[TIMEOUT])
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or microseconds < 0:
        raise InvalidRequest(TIMEOUT, "must be a whole number of microseconds, at least 0")
    return microseconds / 1e6 or None  # Triton's default, 0, is none
