"""Subnormal floats ("denormals"), which processors compute with in slow microcode.

A softmax gives such numbers to masked positions: ONNX Runtime computes exp(-104) for them, about
1e-45. They are too small to change any result.
"""

import ctypes
import platform
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
    """Let the calling thread take subnormal floats as zeros, if the system can set that."""
    register = _REGISTERS.get(platform.machine())
    if register is None or platform.system() != "Linux":
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "fesetenv"):
        return
    environment = ctypes.create_string_buffer(ENVIRONMENT_BYTES)
    library.fegetenv(environment)
    flags = ctypes.c_uint32.from_buffer(environment, register.offset_bytes)
    flags.value |= register.flush
    library.fesetenv(environment)
