"""Stage "starts": whether anything runs on the GPU, and what is missing if not."""

import ctypes
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from attendant_client import Client
from onnx import TensorProto, helper

from bench.gpu.models import (
    BUILT_IN_TRANSLATION,
    PRECISION,
    TRANSLATION,
    carried_bundles,
    made_bundle,
)
from bench.gpu.step_runs import PROVIDERS, StepRuns
from bench.gpu.trial import Figures, Trial, rounded
from bench.servers import flags_for, running_server

PACKAGES = ("grpcio", "numpy", "onnxruntime", "onnxruntime-gpu", "protobuf", "tokenizers", "torch")
MODULES = ("attendant_server.app", "attendant_export.__main__", "attendant_client")
"""Modules that import all that the server, the exporter and the client need."""
PROVIDER_LIBRARY = "libonnxruntime_providers_cuda.so"
TEXT = "Where is the nearest train station?"


def run(trial: Trial) -> None:
    """Report versions, imports, providers, one product, one step, and a translation of a server."""
    trial.part("versions", measure_versions)
    for name in MODULES:
        trial.part(f"import of {name}", measure_import, name)
    trial.part("providers", measure_providers, trial)
    trial.part("one product", measure_product, trial)
    bundle = _bundle(trial)
    if bundle is None:
        trial.report("one step", {"skipped": "there is no bundle yet: run this stage again"})
        return
    trial.part("one step", measure_step, trial, bundle)
    trial.part("one translation", measure_translation, bundle, trial.device)


def measure_versions() -> Figures:
    """The versions of Python and of the packages that compute, as they are installed here."""
    found = {d.name: d.version for d in distributions() if d.name in PACKAGES}
    return {"python": platform.python_version(), **found}


def measure_import(module: str) -> Figures:
    """No figures if a module can be imported; raises RuntimeError with the reason if not."""
    command = [sys.executable, "-c", f"import {module}"]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip().splitlines()[-1])
    return {}


def measure_providers(trial: Trial) -> Figures:
    """The providers that ONNX Runtime offers, and the libraries that its CUDA provider lacks."""
    if trial.device == "cuda":
        onnxruntime.preload_dlls()
    available = onnxruntime.get_available_providers()
    figures = {"onnxruntime": onnxruntime.__version__, "available": available}
    library = Path(onnxruntime.__file__).parent / "capi" / PROVIDER_LIBRARY
    if library.exists():
        missing = subprocess.run(["ldd", library], capture_output=True, text=True).stdout
        lines = missing.splitlines()
        figures["not_found"] = [line.split()[0] for line in lines if "not found" in line]
    return figures


def measure_product(trial: Trial) -> Figures:
    """One product of fp16 matrices by ONNX Runtime, and its error against float64."""
    size = trial.pick(2048, 16)
    kinds = {name: (TensorProto.FLOAT16, [size, size]) for name in "abc"}
    a, b, c = (helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items())
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    provider = PROVIDERS[trial.device]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider])
    rng = np.random.default_rng(1)
    feeds = {name: rng.standard_normal((size, size)).astype(np.float16) for name in "ab"}
    (found,) = session.run(None, feeds)
    exact = feeds["a"].astype(np.float64) @ feeds["b"].astype(np.float64)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    return {"provider": session.get_providers()[0], "relative_error": rounded(float(error))}


def measure_step(trial: Trial, bundle: Path) -> Figures:
    """One decoding step by the graph alone, its first candidate, and the memory of the card."""
    before = _device_memory(trial)
    step = StepRuns(bundle, PRECISION, trial.device, 4)
    step.run()
    figures = {"shape": step.candidates().shape, "first": int(step.candidates()[0, 0])}
    return figures | {"memory_before": before, "memory_after": _device_memory(trial)}


def measure_translation(bundle: Path, device: str) -> Figures:
    """One translation by a server, and the memory of the card that is then in use."""
    flags = [*flags_for(bundle), f"--device={device}", f"--precision={PRECISION}"]
    with running_server(*flags) as server, Client(server.target, timeout_seconds=60) as client:
        text = client.translate(TEXT).raise_for_errors().text
        memory = server.total("attendant_device_memory_used_bytes")
        return {"text": text, "device_memory_used_bytes": memory}


def _bundle(trial: Trial) -> Path | None:
    """A translation bundle: the built-in one if its weights are there, else the exported one."""
    if BUILT_IN_TRANSLATION in carried_bundles():
        return BUILT_IN_TRANSLATION
    try:
        return made_bundle(trial, TRANSLATION)
    except FileNotFoundError:
        return None


def _device_memory(trial: Trial) -> int:
    """Bytes in use on the card by all processes; 0 in a smoke test."""
    if trial.is_smoke:
        return 0
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    library = ctypes.CDLL("libcudart.so.13")
    if code := library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
        raise RuntimeError(f"cudaMemGetInfo: error {code}")
    return total.value - free.value
