"""The device of a training, and the memory of a training on the CPU."""

import ctypes
from contextlib import suppress

import torch


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


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the system after each tensor.

    Without this, every large activation is mapped and page-faulted anew, which was measured to take
    a third of the time of a training step on a CPU. Without glibc, this does nothing.
    """
    trim_threshold, max_mmaps = -1, -4  # names of mallopt(3)
    with suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(max_mmaps, 0)
        glibc.mallopt(trim_threshold, 2**31 - 1)
