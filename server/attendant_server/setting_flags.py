"""Settings as flags of the command line and as environment variables.

A field ``max_rows`` is the flag ``--max-rows`` and the variable ``ATTENDANT_MAX_ROWS``.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import Field
from typing import Any

from attendant_server import __version__

PREFIX = "ATTENDANT_"


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def new_parser(settings: "Iterable[Field[Any]]") -> argparse.ArgumentParser:
    """A parser of the flags of ``settings``."""
    parser = argparse.ArgumentParser(
        prog="attendant-server",
        description="Serves translation and embedding models over gRPC.",
        epilog="Set a flag or the environment variable in brackets; the flag has precedence. "
        "attendant-server --new-api-key NAME makes a key for the file of --api-keys.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for setting in settings:
        default = shown(setting.default) or "none"
        text = f"{description(setting)} (default: {default}) [{variable(setting.name)}]"
        parser.add_argument(
            flag(setting.name), dest=setting.name, metavar="VALUE", help=text.replace("%", "%%")
        )
    return parser


def reader(setting: "Field[Any]") -> Callable[[str], Any]:
    """A function that turns the text of a flag or variable into a value."""
    if isinstance(setting.default, tuple):
        return lambda text: tuple(part.strip() for part in text.split(",") if part.strip())
    return type(setting.default)


def description(setting: "Field[Any]") -> str:
    """The help of a setting with its choices."""
    choices = setting.metadata["choices"]
    return f"{setting.metadata['help']}" + (f" ({', '.join(choices)})" if choices else "")


def shown(default: Any) -> str:
    """A default as it is written on the command line."""
    return ",".join(default) if isinstance(default, tuple) else str(default)
