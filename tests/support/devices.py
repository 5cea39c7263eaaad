"""Devices that tests run on."""

import onnxruntime
import pytest
from attendant_server.runtime.sessions import use_gpu


def open_device(device: str) -> None:
    """Prepare ``cpu`` or ``cuda``. Skips the test with a visible message if there is no GPU."""
    if device == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("NOT RUN: onnxruntime-gpu is not installed")
        try:
            use_gpu(0)
        except RuntimeError as error:
            pytest.skip(f"NOT RUN: {error}")
