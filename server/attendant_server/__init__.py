"""The attendant server: loads bundles and answers attendant.v1 over gRPC."""

__version__ = "0.1.0"
