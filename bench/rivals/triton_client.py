"""Triton Inference Server with dynamic batching, and its client, as a worker of the bench.

    python -m bench.rivals.triton_client --bundle BUNDLE --precision fp32

The server is the one inside the ``nvidia-pytriton`` wheel, started directly. It runs one instance
of `bench.rivals.triton_model` over all threads: with two cores, two instances would halve both.
The environment must be made with the system's Python, for which the wheel has its stub.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tritonclient.grpc.aio
from tritonclient.grpc.aio import InferInput

from bench.embedding_bare_loop import MAX_BATCH_TOKENS
from bench.embedding_worker import FloatArray, serve
from bench.serving import free_port

MAX_BATCH_TEXTS = 64
START_SECONDS = 60
CONFIG = """
name: "embedder"
backend: "python"
max_batch_size: {max_batch_texts}
input [{{ name: "text", data_type: TYPE_STRING, dims: [1] }}]
output [{{ name: "vector", data_type: TYPE_FP32, dims: [-1] }}]
instance_group [{{ kind: KIND_CPU, count: 1 }}]
dynamic_batching {{ }}
parameters [
  {{ key: "bundle", value: {{ string_value: "{bundle}" }} }},
  {{ key: "precision", value: {{ string_value: "{precision}" }} }},
  {{ key: "num_threads", value: {{ string_value: "{num_threads}" }} }},
  {{ key: "max_batch_tokens", value: {{ string_value: "{max_batch_tokens}" }} }}
]
"""
"""A batch is what waits when the instance is free: no delay, as callers keep it busy anyway."""


class TritonEngine:
    """A client of the server; texts of one call are rows of one request."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of length 1 (texts, d)."""
        if not hasattr(self, "_client"):  # it wants the event loop that runs now
            address = f"127.0.0.1:{self._port}"
            self._client = tritonclient.grpc.aio.InferenceServerClient(address)
        parts = [texts[i : i + MAX_BATCH_TEXTS] for i in range(0, len(texts), MAX_BATCH_TEXTS)]
        return np.concatenate(await asyncio.gather(*map(self._request, parts)))

    async def _request(self, texts: Sequence[str]) -> FloatArray:
        tensor = InferInput("text", [len(texts), 1], "BYTES")
        encoded = np.array([[text.encode()] for text in texts], dtype=object)
        tensor.set_data_from_numpy(encoded)
        result = await self._client.infer("embedder", [tensor])
        return np.asarray(result.as_numpy("vector"))


def write_repository(folder: Path, arguments: argparse.Namespace) -> None:
    """The model repository: one model, one version."""
    version = folder / "embedder" / "1"
    version.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("triton_model.py"), version / "model.py")
    text = CONFIG.format(
        max_batch_texts=MAX_BATCH_TEXTS,
        bundle=arguments.bundle.resolve(),
        precision=arguments.precision,
        num_threads=arguments.num_threads,
        max_batch_tokens=arguments.max_batch_tokens,
    )
    (folder / "embedder" / "config.pbtxt").write_text(text)


def copy_backends(folder: Path, packages: Path) -> None:
    """The wheel's Python backend with the stub for this Python beside it."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    triton = packages / "pytriton" / "tritonserver"
    shutil.copytree(triton / "backends", folder)
    stub = "triton_python_backend_stub"
    shutil.copy(triton / "python_backend_stubs" / python / stub, folder / "python" / stub)


@contextmanager
def running_triton(arguments: argparse.Namespace) -> Iterator[int]:
    """The server, ready; yields the port of its gRPC service."""
    packages = Path(sysconfig.get_paths()["purelib"])
    port, http_port = free_port(), free_port()
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "PYTHONPATH": f"{packages}:{Path.cwd()}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        write_repository(Path(scratch, "models"), arguments)
        copy_backends(Path(scratch, "backends"), packages)
        command = [str(packages / "pytriton/tritonserver/bin/tritonserver")]
        command += [f"--model-repository={scratch}/models"]
        command += [f"--backend-directory={scratch}/backends", "--log-verbose=0"]
        command += ["--grpc-address=127.0.0.1", f"--grpc-port={port}"]
        command += ["--http-address=127.0.0.1", f"--http-port={http_port}"]
        command += ["--allow-metrics=false"]
        with subprocess.Popen(command, env=environment, stdout=sys.stderr) as process:
            try:
                _wait(f"http://127.0.0.1:{http_port}/v2/health/ready", process)
                yield port
            finally:
                process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        try:
            with urllib.request.urlopen(url):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise SystemExit("Triton did not start; what it wrote stands above")


def main() -> None:
    """Start the server and serve as a worker."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--num-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--max-batch-tokens", type=int, default=MAX_BATCH_TOKENS)
    with running_triton(parser.parse_args()) as port:
        serve(TritonEngine(port))


if __name__ == "__main__":
    main()
