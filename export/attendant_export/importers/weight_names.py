"""Tables of weight names: whose tensor becomes which parameter of our models."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from attendant_export.importers.checkpoint import CheckpointError

LAYER = "{layer}"


class Weights(Protocol):
    """Tensors by name, which are read when they are asked for."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""

    def read(self, name: str) -> Tensor:
        """One tensor, in fp32."""


@dataclass(frozen=True, slots=True)
class WeightTable:
    """The names of a family.

    ``{layer}`` stands for the number of a layer. A parameter that is made of several tensors,
    such as a fused projection, lists them in order; they are joined along the first dimension.
    They are of the same size, but a tensor that is listed several times is so many times larger.
    """

    names: Mapping[str, str | Sequence[str]]
    """The checkpoint's names by ours, without the suffix ``.weight`` or ``.bias``."""
    whole_names: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """The checkpoint's names by ours with their suffixes, for tensors that have other ones. A
    tensor with one row may stand for a vector."""
    ignored: Sequence[str] = ()
    """Regular expressions of tensors that the model does not need."""
    repeated: Mapping[str, str] = field(default_factory=dict)
    """Names of tensors that repeat a parameter, and that parameter of ours with its suffix."""
    prefixes: Sequence[str] = ("",)
    """Prefixes that a checkpoint may put before all names of the table."""
    spell: Callable[[str, str], str] = "{}.{}".format
    """The checkpoint's name of a tensor, from that of the module and ``weight`` or ``bias``."""

    def load(self, model: nn.Module, weights: Weights) -> None:
        """Make the weights those of a model, whose parameters need no memory (device "meta").

        Raises CheckpointError that lists every missing, unexpected and misshapen tensor or every
        tensor with NaN, or names a tensor that differs from the one that it should repeat.
        """
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        theirs = {name: self.stored_names(name, weights.shapes) for name in wanted}
        self._check_names_and_shapes(wanted, theirs, weights)
        tensors = {
            name: _joined(names, weights).reshape(wanted[name]) for name, names in theirs.items()
        }
        for repeated, name in self.repeated.items():
            if repeated not in weights.shapes or name not in tensors:
                continue
            if not _are_equal(weights.read(repeated), tensors[name]):
                source = ", ".join(theirs[name])
                raise CheckpointError(f"{repeated} differs from {source}, which is not supported")
        if broken := [", ".join(theirs[name]) for name in tensors if _has_nan(tensors[name])]:
            raise CheckpointError(f"weights are NaN: {', '.join(broken)}")
        model.load_state_dict(tensors, assign=True)

    def _check_names_and_shapes(
        self,
        wanted: Mapping[str, tuple[int, ...]],
        theirs: Mapping[str, Sequence[str]],
        weights: Weights,
    ) -> None:
        """Raise CheckpointError unless the checkpoint has exactly ``theirs`` of these shapes."""
        used = {each for names in theirs.values() for each in names}
        problems = [f"{name} is missing" for name in sorted(used - weights.shapes.keys())]
        problems += [
            f"{name} {weights.shapes[name]} is not expected"
            for name in sorted(weights.shapes.keys() - used - self.repeated.keys())
            if not any(re.fullmatch(pattern, name) for pattern in self.ignored)
        ]
        for name, shape in wanted.items():
            if all(each in weights.shapes for each in theirs[name]):
                problems += _shape_problems(theirs[name], shape, weights.shapes)
        if problems:
            listed = "; ".join(problems)
            raise CheckpointError(f"the weights do not fit the configuration: {listed}")

    def stored_names(self, name: str, found: Mapping[str, object]) -> list[str]:
        """The checkpoint's names of a parameter of ours, given the names that it has."""
        if name in self.whole_names:
            whole = self.whole_names[name]
            return [whole] if isinstance(whole, str) else list(whole)
        module, kind = name.rsplit(".", 1) if name.endswith((".weight", ".bias")) else (name, "")
        for ours, theirs in self.names.items():
            pattern = re.escape(ours).replace(re.escape(LAYER), r"(\d+)")
            if match := re.fullmatch(pattern, module):
                layer = match[1] if match.groups() else ""
                modules = [theirs] if isinstance(theirs, str) else theirs
                names = [self.spell(each, kind).replace(LAYER, layer) for each in modules]
                return [self._prefixed(each, found) for each in names]
        raise ValueError(f"the table of weight names lacks {name}")

    def _prefixed(self, name: str, found: Mapping[str, object]) -> str:
        names = [prefix + name for prefix in self.prefixes]
        return next((each for each in names if each in found), names[0])


def _shape_problems(
    names: Sequence[str], wanted: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    first, *rest = wanted
    problems = []
    for name, count in Counter(names).items():
        part = (first // len(names) * count, *rest)
        fitting = (part, (1, *part)) if len(wanted) == 1 else (part,)
        if shapes[name] not in fitting:
            problems.append(f"{name} is {shapes[name]}, not {part}")
    return problems


def _are_equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _has_nan(tensor: Tensor) -> bool:
    """Whether a value is NaN. A sum without NaN saves the memory of a mask."""
    return bool(tensor.sum().isnan()) and bool(tensor.isnan().any())


def _joined(names: Sequence[str], weights: Weights) -> Tensor:
    tensors = [weights.read(name) for name in dict.fromkeys(names)]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
