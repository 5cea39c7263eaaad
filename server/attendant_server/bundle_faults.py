"""Faults of bundles in words for callers, who must not learn the server's paths."""

import tempfile
from pathlib import Path

from attendant_server.bundles import BundleError


def without_paths(error: BundleError, directory: Path, key: str) -> str:
    """The message of an error, with a bundle's key in place of its folder.

    Messages name the folder to which ``directory`` leads, which may be behind a link.
    """
    names = {
        str(directory.resolve()): key,
        str(directory): key,
        tempfile.gettempdir(): "the temporary folder",
    }
    message = str(error)
    for path, name in names.items():
        message = message.replace(path, name)
    return message
