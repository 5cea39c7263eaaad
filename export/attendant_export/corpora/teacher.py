"""Embeds texts by a server of a bundle, as the vectors that a student learns."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from attendant.v1.bundle_pb2 import MODEL_KIND_EMBEDDING
from attendant_client import Client
from attendant_client.errors import AttendantError
from numpy.typing import NDArray

from attendant_export.bundle.manifest import MANIFEST, read_manifest
from attendant_export.corpora.local_server import local_server
from attendant_export.data.text_files import digest


class Teacher:
    """A bundle whose vectors a student learns. Its server runs from the first call of `embed` on.

    A context manager, whose end stops the server.
    """

    def __init__(self, bundle: Path, num_threads: int | None = None) -> None:
        """``num_threads`` is the number of threads of the server; None: one for each core.

        Raises BundleError for a damaged bundle, and ValueError for one of another kind.
        """
        manifest = read_manifest(bundle)
        if manifest.kind != MODEL_KIND_EMBEDDING:
            raise ValueError(f"--teacher {bundle}: is no embedding model")
        self.name = f"{manifest.name}/{manifest.version}"
        """Name and version of the model."""
        self.license = manifest.license
        """The licence of the model."""
        self.key = digest(bundle / MANIFEST)
        """A hash of all that its vectors depend on."""
        self._bundle, self._num_threads = bundle, num_threads
        self._stack = ExitStack()
        self._client: Client | None = None

    def __enter__(self) -> "Teacher":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float16]:
        """Vectors of length 1, (texts, width). The ends of texts that are too long do not count.

        Raises ValueError if the server refuses a text or cannot embed, and as `local_server`.
        """
        if self._client is None:
            target = self._stack.enter_context(local_server(self._bundle, self._num_threads))
            self._client = self._stack.enter_context(Client(target))
        try:
            results = self._client.bulk_embed(
                texts, normalize=True, data_type="float16", truncation="right"
            )
            with results:
                return np.stack([result.raise_for_errors().vector for result in results])
        except AttendantError as error:
            raise ValueError(f"--teacher {self._bundle}: {error}") from error
