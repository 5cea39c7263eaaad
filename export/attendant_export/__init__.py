"""The attendant exporter: trains models and writes them as bundles that the server loads."""

import os

# ONNX Runtime reports its use to its makers unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
