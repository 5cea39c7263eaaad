"""The attendant exporter: trains models and writes them as bundles that the server loads."""

import os

# ONNX Runtime sends usage data to Microsoft unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
