"""The attendant exporter: trains models and writes them as bundles that the server loads."""

import os

# ONNX Runtime and huggingface_hub send usage data unless these are set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
