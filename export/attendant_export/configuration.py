"""Options of a training from a TOML file, and the file that a run keeps of its own."""

import argparse
import json
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attendant_export.runs import checkpoint

OPTIONS = "options.toml"
"""Name of the file in a run folder with all options of the training."""
NOT_IN_FILES = frozenset({"help", "config"})


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``; `with_config` reads the file."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file of options, such as max-minutes = 60; options of the command line override "
        f"it; a run keeps the options that it began with in {OPTIONS}, which is such a file",
    )


def with_config(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """``arguments`` of ``parser`` after those of the file that their ``--config`` names.

    An option that occurs in both is taken from ``arguments`` alone, also one that may be repeated.
    Raises ValueError that names the file and all unknown options and values of a wrong type.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(arguments)[0].config
    if path is None:
        return list(arguments)
    flags = (argument for argument in arguments if argument.startswith("--"))
    overriding = {_name(flag.partition("=")[0]) for flag in flags}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    options = {_name(option): value for option, value in table.items()}
    actions = _actions(parser)
    given: list[str] = []
    problems = []
    for name, value in options.items():
        try:
            found = _as_arguments(name, value, actions)
            given += [] if name in overriding else found
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return [*given, *arguments]


def write_options(run_dir: Path, parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Write the options ``args`` of a training to its run folder, as a file for ``--config``."""
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False, default=str)}\n"
        for name, action in _actions(parser).items()
        if (value := getattr(args, action.dest)) is not None
    ]
    run_dir.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(run_dir / OPTIONS, "".join(lines))


def _name(option: str) -> str:
    return option.lstrip("-").replace("_", "-")


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options of ``parser`` by their names without dashes in front."""
    actions = {_name(action.option_strings[-1]): action for action in parser._actions}
    return {name: action for name, action in actions.items() if name not in NOT_IN_FILES}


def _as_arguments(name: str, value: Any, actions: dict[str, argparse.Action]) -> list[str]:
    """``name = value`` of a file in the form of the command line."""
    action = actions.get(name)
    if action is None:
        similar = get_close_matches(name, actions, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        raise ValueError(f"{name} is not an option{hint}")
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}, but must be true or false")
        return [f"--{name}"] if value else []
    is_repeatable = isinstance(action, argparse._AppendAction)
    values = value if isinstance(value, list) and is_repeatable else [value]
    if any(isinstance(each, bool | list | dict) for each in values):
        many = " or a list of them" if is_repeatable else ""
        raise ValueError(f"{name} is {value!r}, but must be a text or a number{many}")
    return [f"--{name}={each}" for each in values]
