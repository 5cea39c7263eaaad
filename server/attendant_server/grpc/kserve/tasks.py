"""What a model does with its inputs, and the choice of it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from google.protobuf.message import Message

from attendant_server.application.application import Application
from attendant_server.application.descriptions import ModelDescription
from attendant_server.errors import InvalidRequest
from attendant_server.field_names import renamed
from attendant_server.grpc.kserve.tensors import BYTES, OutputTensor

TEXT = "TEXT"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model."""

    name: str
    datatype: str = BYTES
    num_columns: int = 1
    """Values of each text; -1 if it depends on the request."""
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The outputs for all texts of a call, or a part of them."""

    model: str
    """The model that answered, as ``name/version``."""
    outputs: dict[str, OutputTensor]
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Further facts of the answer."""
    size: int = 0
    """Approximate number of tokens in it, for `JobRunner.run_for`."""
    is_last: bool = True
    """False for a part of a streamed result."""


class Task(ABC):
    """One thing that models of a kind do: a method of attendant.v1 with tensors."""

    operation: ClassVar[str]
    """The name of the method of attendant.v1."""
    message: ClassVar[type[Message]]
    """Its request, whose fields are the parameters."""
    hidden: ClassVar[Collection[str]]
    """Fields of `message` that are no parameters."""
    tensor_fields: ClassVar[Mapping[str, str]] = {"texts": TEXT}
    """The tensors of fields that errors name."""
    stream_operation: ClassVar[str] = ""
    """The method that streams; empty if none does."""
    stream_message: ClassVar[type[Message]]

    @abstractmethod
    def inputs(self) -> Sequence[TensorSpec]:
        """The inputs."""

    @abstractmethod
    def outputs(self, model: ModelDescription) -> Sequence[TensorSpec]:
        """The outputs for a model."""

    @abstractmethod
    def fits(self, model: ModelDescription) -> bool:
        """Whether the model can do it."""

    @abstractmethod
    async def run(
        self,
        application: Application,
        message: Any,
        texts: Mapping[str, Sequence[str]],
        seconds_left: float | None,
    ) -> TaskResult:
        """Do it for the texts of the inputs, by name; raises the fault of the first bad text."""

    def stream(
        self, application: Application, message: Any, text: str, seconds_left: float | None
    ) -> AsyncGenerator[TaskResult, None]:
        """Do it for one text, piece by piece: the texts of all results make up its text."""
        raise NotImplementedError

    def renamed(self, error: InvalidRequest) -> InvalidRequest:
        """The error with the names of tensors and parameters instead of fields of messages."""
        error.field = error.field.rpartition("options.")[2].removeprefix("sampling.")
        return renamed(error, self.tensor_fields)


def chosen_task(
    tasks: Sequence[Task],
    model: ModelDescription,
    inputs: Collection[str],
    outputs: Sequence[str],
) -> Task:
    """The first task of the model with these inputs and requested outputs; raises InvalidRequest.

    ``tasks`` are in order of preference.
    """
    fitting = [task for task in tasks if task.fits(model)]
    by_inputs = [task for task in fitting if _takes(task, inputs)]
    if not by_inputs:
        allowed = " or ".join(dict.fromkeys(_shown_inputs(task) for task in fitting))
        raise InvalidRequest("inputs", f"must be {allowed}")
    known = [{each.name for each in task.outputs(model)} for task in by_inputs]
    for task, names in zip(by_inputs, known, strict=True):
        if names.issuperset(outputs):
            return task
    allowed = " or ".join(", ".join(sorted(names)) for names in known)
    number = next((i for i, name in enumerate(outputs) if name not in set().union(*known)), None)
    field = "outputs" if number is None else f"outputs[{number}].name"
    raise InvalidRequest(field, f"must be among {allowed}")


def _takes(task: Task, inputs: Collection[str]) -> bool:
    specs = task.inputs()
    needed = {spec.name for spec in specs if not spec.is_optional}
    return needed.issubset(inputs) and {spec.name for spec in specs}.issuperset(inputs)


def _shown_inputs(task: Task) -> str:
    return " and ".join(
        f"optionally {spec.name}" if spec.is_optional else spec.name for spec in task.inputs()
    )
