"""Where bundles come from: a folder, or whatever keeps a folder like a remote one."""

from pathlib import Path
from typing import Protocol

from attendant_server.bundles import Bundle


class BundleSource(Protocol):
    """A folder ``root`` with the manifests of all bundles, and a way to get the files of one."""

    @property
    def root(self) -> Path:
        """The folder ``<name>/<version>/``, with the files that choose default versions."""

    def update(self) -> int:
        """Bring ``root`` up to date; returns how many downloads have failed so far."""

    def check(self, bundle: Bundle) -> bool:
        """Whether a bundle of ``root`` can be had now. Raises BundleError if it is refused."""

    def fetch(self, bundle: Bundle) -> Bundle:
        """A bundle with its files, which stay until `release`. Raises BundleError."""

    def release(self, key: str) -> None:
        """The bundle ``name/version`` is not served any more."""

    def close(self) -> None:
        """Stop downloads, and release all bundles."""


class LocalBundles:
    """A folder with whole bundles."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def update(self) -> int:
        """Does nothing."""
        return 0

    def check(self, bundle: Bundle) -> bool:
        """All bundles of the folder can be had."""
        return True

    def fetch(self, bundle: Bundle) -> Bundle:
        """The bundle as it is."""
        return bundle

    def release(self, key: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
