"""The default versions that the folder of the bundles chooses."""

from collections.abc import Callable, Collection
from pathlib import Path

from attendant_server.bundles import BundleError, read_small

FILE_NAME = "default-version"
MAX_BYTES = 256


def read_default_versions(
    root: Path,
    known: Collection[str],
    on_bad: Callable[[BundleError], None] | None = None,
) -> dict[str, str]:
    """The versions that the files ``<name>/default-version`` choose, by name.

    ``known`` are the keys of the models that can be chosen. Files of other models, such as those
    that another server of the same folder serves, are not read. Raises BundleError. With
    ``on_bad``, the error of a bad file is passed to it instead, and the file chooses nothing.
    """
    chosen, names = {}, {key.partition("/")[0] for key in known}
    for path in sorted(root.glob(f"*/{FILE_NAME}")):
        name = path.parent.name
        if name not in names:
            continue
        try:
            chosen[name] = _version_in(path, known)
        except BundleError as error:
            if on_bad is None:
                raise
            on_bad(error)
    return chosen


def _version_in(path: Path, known: Collection[str]) -> str:
    name = path.parent.name
    version = read_small(path.parent, FILE_NAME, MAX_BYTES).decode(errors="replace").strip()
    if f"{name}/{version}" not in known:
        raise BundleError(f"{path}: must hold a version of {name} that is served")
    return version
