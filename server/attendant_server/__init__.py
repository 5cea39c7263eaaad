"""The attendant server: loads bundles and answers attendant.v1 over gRPC."""

import os

# Disables ONNX Runtime's telemetry; must be set before ONNX Runtime is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
