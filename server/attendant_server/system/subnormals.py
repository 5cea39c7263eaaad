"""Subnormal floats ("denormals"), which processors compute with in slow microcode.

A softmax gives such numbers to masked positions: ONNX Runtime computes exp(-104) for them, about
1e-45. They are too small to change any result.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

ENVIRONMENT_BYTES = 64
"""Bytes for the floating-point environment of C (``fenv_t``), which is smaller."""


class _Register(NamedTuple):
    """The bits of a control register that flush subnormals, and its place in the environment."""

    offset_bytes: int
    flush: int


_REGISTERS = {
    "x86_64": _Register(offset_bytes=28, flush=0x8040),  # MXCSR: flush to zero, and as zero
    "aarch64": _Register(offset_bytes=0, flush=1 << 24),  # FPCR: flush to zero
}


def flush_subnormals() -> None:
    """Flush subnormal floats of the calling thread to zero, if the system can set that."""
    register, library = _REGISTERS.get(platform.machine()), _library()
    if register is None or library is None:
        return
    environment = _environment(library)
    flags = ctypes.c_uint32.from_buffer(environment, register.offset_bytes)
    flags.value |= register.flush
    library.fesetenv(environment)


@contextmanager
def kept_float_environment() -> Iterator[None]:
    """Undo what the block changes in the floating-point environment of the calling thread."""
    library = _library()
    if library is None:
        yield
        return
    environment = _environment(library)
    try:
        yield
    finally:
        library.fesetenv(environment)


def _environment(library: ctypes.CDLL) -> "ctypes.Array[ctypes.c_char]":
    """The floating-point environment of the calling thread."""
    environment = ctypes.create_string_buffer(ENVIRONMENT_BYTES)
    library.fegetenv(environment)
    return environment


def _library() -> ctypes.CDLL | None:
    """The C library, if it is known to have the environment's layout."""
    library = ctypes.CDLL(None) if platform.system() == "Linux" else None
    return library if hasattr(library, "fesetenv") else None
