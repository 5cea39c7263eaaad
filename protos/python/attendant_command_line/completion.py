"""The flag `--print-completion`: scripts with which shells complete a command.

The scripts are written by shtab, which need not be installed otherwise. They state all flags and
values, so that completing runs no Python (decision 0114).
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Never

SHELLS = ("bash", "zsh", "fish")


def add_print_completion(
    parser: argparse.ArgumentParser,
    distribution: str,
    *,
    values: Mapping[str, tuple[str, ...]] | None = None,
    files: frozenset[str] = frozenset(),
) -> None:
    """Add `--print-completion SHELL`, which prints the script of that shell.

    ``distribution`` has the extra `completion`. ``values`` are those of options by ``dest`` that
    argparse does not check, and ``files`` the ``dest`` of options that take a file or folder,
    beside those whose type is ``Path`` or whose metavar is FILE.
    """
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=SHELLS,
        distribution=distribution,
        values=values or {},
        files=files,
        help="print a script with which a shell completes this command, and exit; needs the extra "
        f"completion of {distribution}",
    )


class _PrintCompletion(argparse.Action):
    """Imports shtab when a script is asked for, because it may be missing."""

    def __init__(
        self,
        option_strings: list[str],
        dest: str,
        *,
        distribution: str,
        values: Mapping[str, tuple[str, ...]],
        files: frozenset[str],
        **options: Any,
    ) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, **options)
        self._distribution = distribution
        self._values = values
        self._files = files

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, shell: Any, *_: Any
    ) -> Never:
        try:
            import shtab
        except ModuleNotFoundError:
            parser.error(f"this needs shtab: pip install '{self._distribution}[completion]'")
        for action in _actions(parser):
            if action.dest in self._values:
                action.choices = self._values[action.dest]
            elif action.choices is None and self._takes_files(action):
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it
        sys.stdout.write(shtab.complete(parser, shell))
        parser.exit()

    def _takes_files(self, action: argparse.Action) -> bool:
        return action.type is Path or action.metavar == "FILE" or action.dest in self._files


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
