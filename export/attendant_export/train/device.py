"""The device and precision of a training, and its memory on the CPU."""

import ctypes
import time
from contextlib import suppress

import torch

from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup

PRECISIONS = ("auto", "fp32", "bf16")
MIN_SPEED = 3.0
"""bfloat16 pays if its products are this many times faster, since conversions take time as well."""


def pick_device(name: str) -> torch.device:
    """The device called ``name``: ``auto``, ``cpu`` or ``cuda``.

    ``auto`` is CUDA if available, else the CPU. Raises ValueError for other names, and for ``cuda``
    without a CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {name!r} is not auto, cpu or cuda")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("PyTorch finds no CUDA device here")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def pick_precision(
    name: str, device: torch.device, processes: ProcessGroup = SINGLE_PROCESS
) -> torch.dtype:
    """The type of the products of a training: ``auto``, ``fp32`` or ``bf16`` with fp32 weights.

    ``auto`` is bfloat16 on CUDA, and on a CPU that multiplies it much faster than float32, such as
    one with AMX. The first of the ``processes`` measures this for all of them, since their own
    measurements might differ. Raises ValueError for other names.
    """
    if name not in PRECISIONS:
        raise ValueError(
            f"precision {name!r} is not {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
        )
    if name == "auto":
        pays = processes.is_first and (device.type == "cuda" or _bfloat16_speed() > MIN_SPEED)
        name = "bf16" if processes.of_first(pays) else "fp32"
    return torch.bfloat16 if name == "bf16" else torch.float32


def _bfloat16_speed() -> float:
    """How many times faster than float32 this CPU multiplies matrices of bfloat16."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            times.append(time.perf_counter() - started)
        seconds[dtype] = min(times)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the system after each tensor.

    Without this, every large activation is mapped and page-faulted anew, which was measured to take
    a third of the time of a training step on a CPU. Without glibc, this does nothing.
    """
    trim_threshold, max_mmaps = -1, -4  # names of mallopt(3)
    with suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(max_mmaps, 0)
        # -1: never. A limit of 2 GB is reached at the end of each step of a large batch.
        glibc.mallopt(trim_threshold, -1)
