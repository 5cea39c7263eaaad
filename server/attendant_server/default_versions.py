"""The default versions that the folder of the bundles chooses."""

from collections.abc import Collection
from pathlib import Path

from attendant_server.bundles import BundleError
from attendant_server.reasons import reason_of

FILE_NAME = "default-version"
MAX_BYTES = 256


def read_default_versions(root: Path, known: Collection[str]) -> dict[str, str]:
    """The versions that the files ``<name>/default-version`` choose, by name.

    ``known`` are the keys of the models that can be chosen. Raises BundleError.
    """
    chosen = {}
    for path in sorted(root.glob(f"*/{FILE_NAME}")):
        try:
            if not path.is_file():  # opening a named pipe would never end
                raise BundleError(f"{path}: is not a regular file")
            with path.open("rb") as file:
                version = file.read(MAX_BYTES).decode(errors="replace").strip()
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror or reason_of(error)}") from error
        if f"{path.parent.name}/{version}" not in known:
            raise BundleError(f"{path}: must hold a version of {path.parent.name} that is served")
        chosen[path.parent.name] = version
    return chosen
