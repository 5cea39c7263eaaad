"""The attendant exporter: trains models and writes them as bundles that the server loads."""

__version__ = "0.1.0"
