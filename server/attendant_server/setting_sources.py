"""Reads the settings from flags and variables, and writes their table.

A field ``max_rows`` of `Settings` is the flag ``--max-rows`` and the variable
``ATTENDANT_MAX_ROWS``. The flag has precedence.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from attendant_command_line import add_print_completion, add_version
from attendant_manifest import MANIFEST_VERSION

from attendant_server import __version__
from attendant_server.service_links import is_service_link
from attendant_server.settings import Settings, SettingsError

PREFIX = "ATTENDANT_"
FORMATS = {"protocol": "attendant.v1", "manifest": str(MANIFEST_VERSION)}
PACKAGES = (
    *("attendant-protos", "onnxruntime", "onnxruntime-gpu"),
    *("grpcio", "protobuf", "numpy", "tokenizers"),
)
"""What `--version` tells the versions of."""
FOREIGN_VARIABLES = tuple(
    f"ATTENDANT_{name}" for name in ("TARGET", "TOKEN", "CA", "CLIENT_CERT", "CLIENT_KEY")
)
"""Variables of the client, which may be set in the shell that starts a server."""


def load_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read the settings; raises SettingsError with every unknown name and bad value."""
    flags, unknown = _parser().parse_known_args(arguments)
    problems = [f"{argument}: unknown argument" for argument in unknown]
    known = {*FOREIGN_VARIABLES, *(variable(f.name) for f in fields(Settings))}
    ours = {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIX) and not is_service_link(name, environment)
    }
    problems += [f"{name}: unknown variable" for name in sorted(ours) if name not in known]
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        given = getattr(flags, setting.name)
        if given is None:
            given = ours.get(variable(setting.name))
        if given is not None:
            try:
                values[setting.name] = _reader(setting)(given)
            except ValueError:
                kind = "whole number" if isinstance(setting.default, int) else "number"
                problems.append(f'{setting.name}: "{given}" is not a {kind}')
    return _checked(values, problems)


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def settings_table() -> str:
    """All settings as the Markdown table of the README."""
    rows = ["| flag | variable | default | meaning |", "|---|---|---|---|"]
    for setting in fields(Settings):
        default = _shown(setting.default)
        rows.append(
            f"| `{flag(setting.name)}` | `{variable(setting.name)}` "
            f"| {f'`{default}`' if default else ''} | {_description(setting)} |"
        )
    return "\n".join(rows)


def _checked(values: Mapping[str, Any], problems: list[str]) -> Settings:
    try:
        settings = Settings(**values)
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attendant-server",
        description="Serves translation and embedding models over gRPC.",
        epilog="Set a flag or the environment variable in brackets; the flag has precedence. "
        "attendant-server --new-api-key NAME makes a key for the file of --api-keys.",
        allow_abbrev=False,
    )
    add_version(parser, __version__, formats=FORMATS, packages=PACKAGES)
    add_print_completion(
        parser,
        "attendant-server",
        values={s.name: s.metadata["choices"] for s in fields(Settings) if s.metadata["choices"]},
        files=frozenset(s.name for s in fields(Settings) if _is_place(s)),
    )
    for setting in fields(Settings):
        default = _shown(setting.default) or "none"
        text = f"{_description(setting)} (default: {default}) [{variable(setting.name)}]"
        parser.add_argument(
            flag(setting.name), dest=setting.name, metavar="VALUE", help=text.replace("%", "%%")
        )
    return parser


def _is_place(setting: "Field[Any]") -> bool:
    """Whether a setting is a file or folder, as its description says."""
    is_text = isinstance(setting.default, str | Path)
    return is_text and re.search(r"\b(file|folder)\b", _description(setting), re.I) is not None


def _reader(setting: "Field[Any]") -> Callable[[str], Any]:
    if isinstance(setting.default, tuple):
        return lambda text: tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(setting.default, Path):
        return lambda text: text if "://" in text else Path(text)  # a path would lose a slash
    return type(setting.default)


def _description(setting: "Field[Any]") -> str:
    choices = setting.metadata["choices"]
    return f"{setting.metadata['help']}" + (f" ({', '.join(choices)})" if choices else "")


def _shown(default: Any) -> str:
    return ",".join(default) if isinstance(default, tuple) else str(default)
