"""Python client of the attendant server, and the `attendant` command."""

__version__ = "0.1.0"
