"""The environment of a recording: the processor and the server's packages.

The last bits of floats depend on the instructions that the kernels of ONNX Runtime and NumPy use.
Only answers from the same environment can be compared bit by bit.
"""

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

Surroundings = dict[str, Any]

CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("grpcio", "numpy", "onnxruntime", "onnxruntime-gpu", "protobuf", "tokenizers")
CALCULATING_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu")
_INSTRUCTION_SETS = re.compile(r"(?:sse|ssse|avx|amx|fma|f16c|asimd|sve|i8mm|bf16)\w*")
_SHOW_VERSIONS = f"""
from importlib import metadata
for name in {PACKAGES}:
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        pass
"""


def surroundings(executable: Path) -> Surroundings:
    """The environment of a server on this machine."""
    python = executable.with_name("python")
    shown = subprocess.run(
        [python, "-c", _SHOW_VERSIONS], check=True, capture_output=True, text=True
    ).stdout
    return {
        "processor": _processor(_cpuinfo()),
        "packages": dict(line.split() for line in shown.splitlines()),
    }


def are_comparable_bit_by_bit(one: Surroundings, two: Surroundings) -> bool:
    """Whether the same server must give bit-identical floats in both environments."""
    versions = [[s["packages"].get(name) for name in CALCULATING_PACKAGES] for s in (one, two)]
    return bool(one["processor"] == two["processor"] and versions[0] == versions[1])


def _cpuinfo() -> dict[str, str]:
    if not CPUINFO.exists():
        return {}
    first = CPUINFO.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _processor(cpuinfo: dict[str, str]) -> dict[str, str]:
    flags = cpuinfo.get("flags") or cpuinfo.get("Features") or ""
    return {
        "name": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "model": f"{cpuinfo.get('cpu family', '')}/{cpuinfo.get('model', '')}",
        "instruction sets": " ".join(sorted(_INSTRUCTION_SETS.findall(flags))),
    }
