"""The flag `--version`: the versions of a command and of what it depends on."""

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Never


def add_version(
    parser: argparse.ArgumentParser,
    own_version: str,
    *,
    formats: Mapping[str, str],
    packages: Sequence[str],
) -> None:
    """Add `--version`, which prints lines of a name and a version, the command's own first.

    ``formats`` are the protocols and files by name, with their versions. ``packages`` are names of
    distributions, of which those that are not installed are left out.
    """
    parser.add_argument(
        "--version",
        action=_Version,
        own_version=own_version,
        formats=formats,
        packages=packages,
        help="print the versions of the command and of what it depends on, and exit",
    )


class _Version(argparse.Action):
    """Looks the versions up when they are asked for, because that takes time."""

    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        *,
        own_version: str,
        formats: Mapping[str, str],
        packages: Sequence[str],
        help: str,
    ) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)
        self._own_version = own_version
        self._formats = formats
        self._packages = packages

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> Never:
        versions = {parser.prog: self._own_version, **self._formats}
        versions["python"] = platform.python_version()
        for package in self._packages:
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                continue
        sys.stdout.write("".join(f"{name} {number}\n" for name, number in versions.items()))
        parser.exit()
