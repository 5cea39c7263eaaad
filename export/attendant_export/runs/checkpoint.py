"""Weights, optimizer state and progress on disk, as safetensors and JSON: never a pickle."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS, AVERAGE, OPTIMIZER, STATE, CONFIG = (
    "weights.safetensors",
    "average.safetensors",
    "optimizer.safetensors",
    "state.json",
    "config.json",
)
LAST, BEST = "last", "best"
KEPT = "checkpoints"
"""Folder of the weights of the latest validations, which an export can average."""
COPIES = 9
"""The largest size of the checkpoints in a run folder, as a multiple of the size of the weights.

``last`` and its successor have four copies each: the weights, their average, and two values of the
optimizer for each weight. ``best`` has one. The kept weights of validations come in addition.
"""


def check_space(model: nn.Module, run_dir: Path, num_kept: int = 0) -> None:
    """Raise OSError if the disk of ``run_dir`` has no space for the checkpoints of ``model``.

    ``num_kept`` is the number of validations whose weights are kept.
    """
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    needed, free = (COPIES + num_kept) * size, shutil.disk_usage(run_dir).free
    if free < needed:
        raise OSError(
            f"{run_dir}: checkpoints need {needed / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB "
            "of the disk are free"
        )


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the model's parameters and persistent buffers to one safetensors file.

    Raises OSError if it cannot be written.
    """
    _save_tensors(path, model.state_dict())


def load_weights(path: Path, model: nn.Module) -> None:
    """Load weights written by `save_weights`, as `set_weights` does."""
    set_weights(path, read_weights(path), model)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights from a file of `save_weights`. Raises ValueError that names a damaged file."""
    return _load_tensors(path)


def set_weights(path: Path, found: Mapping[str, Tensor], model: nn.Module) -> None:
    """Copy the weights ``found`` in ``path`` into ``model``; names and shapes must match exactly.

    Raises ValueError that lists every missing, unexpected or misshapen tensor at once.
    """
    wanted = model.state_dict()
    problems = [f"missing {name}" for name in wanted.keys() - found.keys()]
    problems += [f"unexpected {name}" for name in found.keys() - wanted.keys()]
    problems += [
        f"{name} is {tuple(found[name].shape)}, want {tuple(wanted[name].shape)}"
        for name in wanted.keys() & found.keys()
        if found[name].shape != wanted[name].shape
    ]
    if problems:
        raise ValueError(f"{path} does not fit the model: " + "; ".join(sorted(problems)))
    model.load_state_dict({name: tensor.float() for name, tensor in found.items()})


def save_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Write the optimizer's per-parameter tensors, named ``<parameter index>.<name>``.

    Raises OSError if they cannot be written.
    """
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    tensors = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }
    _save_tensors(path, tensors)


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    temporary.replace(path)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: {error}") from error


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the state from `save_optimizer` into an optimizer over the same parameters.

    Raises ValueError that names a damaged file.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _load_tensors(path).items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def save_last(
    run_dir: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    averaged: Callable[[], AbstractContextManager[None]] | None = None,
) -> None:
    """Write ``last/`` of a run folder and replace the previous one as a whole.

    In the context ``averaged``, if given, ``model`` has the average of its weights. A crash leaves
    either the previous or the new folder, never a mixture.
    """
    last, new, old = run_dir / LAST, run_dir / f"{LAST}.new", run_dir / f"{LAST}.old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    save_weights(new / WEIGHTS, model)
    if averaged is not None:
        with averaged():
            save_weights(new / AVERAGE, model)
    save_optimizer(new / OPTIMIZER, optimizer)
    write_json(new / STATE, state)
    if last.exists():
        last.rename(old)
    new.rename(last)
    shutil.rmtree(old, ignore_errors=True)


def find_last(run_dir: Path) -> Path | None:
    """The folder from `save_last`, if it exists. Undoes a replacement that a crash interrupted."""
    last, old = run_dir / LAST, run_dir / f"{LAST}.old"
    if not last.exists() and old.exists():
        old.rename(last)
    return last if (last / STATE).exists() else None


def keep_last_as_best(run_dir: Path) -> None:
    """Copy the weights of ``last/`` to ``best/``, their average if there is one."""
    best = run_dir / BEST / WEIGHTS
    best.parent.mkdir(exist_ok=True)
    temporary = best.with_suffix(".tmp")
    shutil.copyfile(_average_or_weights(run_dir / LAST), temporary)
    temporary.replace(best)


def keep_last(run_dir: Path, step: int, num_kept: int) -> None:
    """Keep a copy of the weights of ``last/`` of this step, their average if there is one.

    Only the latest ``num_kept`` copies are kept.
    """
    kept = run_dir / KEPT / f"{step:010}.safetensors"
    kept.parent.mkdir(exist_ok=True)
    temporary = kept.with_suffix(".tmp")
    shutil.copyfile(_average_or_weights(run_dir / LAST), temporary)
    temporary.replace(kept)
    for path in kept_weights(run_dir)[:-num_kept]:
        path.unlink()


def kept_weights(run_dir: Path) -> list[Path]:
    """The files of `keep_last`, in the order of their steps."""
    return sorted((run_dir / KEPT).glob("*.safetensors"))


def read_mean(run_dir: Path, num_averaged: int) -> dict[str, Tensor]:
    """The mean of the weights of the last ``num_averaged`` validations.

    Raises ValueError if a run has not kept as many, or has gone on without keeping any.
    """
    found = kept_weights(run_dir)
    if len(found) < num_averaged:
        raise ValueError(
            f"--average {num_averaged}: {run_dir} has kept the weights of {len(found)} "
            "validations; --keep-checkpoints of a training keeps more"
        )
    _check_kept_last(run_dir, int(found[-1].stem))
    parts = map(read_weights, found[-num_averaged:])
    total = {name: tensor.double() for name, tensor in next(parts).items()}
    for part in parts:
        for name, tensor in part.items():
            total[name] += tensor
    return {name: (tensor / num_averaged).float() for name, tensor in total.items()}


def _check_kept_last(run_dir: Path, step: int) -> None:
    """Raise ValueError if the last validation was not that after ``step``."""
    last = find_last(run_dir)
    validated = step if last is None else read_json(last / STATE).get("validated_step", step)
    if validated != step:
        raise ValueError(
            f"--average: {run_dir} has kept no weights after step {step:,}, but its last "
            f"validation was after step {validated:,}; go on with --keep-checkpoints"
        )


def read_average(last: Path) -> dict[str, Tensor]:
    """The average of the weights in a folder of `save_last`, else the weights."""
    return read_weights(_average_or_weights(last))


def _average_or_weights(last: Path) -> Path:
    average = last / AVERAGE
    return average if average.exists() else last / WEIGHTS


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError if it is not JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def find_weights(folder: Path) -> Path:
    """The best weights of a run folder. Raises FileNotFoundError if there are none yet."""
    path = folder / BEST / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no {BEST}/{WEIGHTS}: nothing was trained there yet")
    return path
