"""The registry of Firefox Translations: which models there are for a pair of languages.

Mozilla writes it as one JSON object (``db/updater.py`` of mozilla/translations)::

    {"baseUrl": ..., "models": {"en-de": [{
        "architecture": "tiny", "releaseStatus": "Release",
        "files": {"model": {"path": ..., "uncompressedSize": ..., "uncompressedHash": ...},
                  "lexicalShortlist": {"path": ...}, "vocab": {"path": ...}}}]}}

Pairs of languages without a common vocabulary have ``srcVocab`` and ``trgVocab``.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import langcodes

from attendant_export.importers.checkpoint import CheckpointError, is_plain_name

STATUSES = ("Release Desktop", "Release", "Release Android")
"""The states of released models, the preferred first."""
RELEASED = "Release"
MAX_NEAR = 8
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a model. Size and hash are those of the unpacked file, None if not stated."""

    path: str
    size_bytes: int | None
    sha256: str | None

    @property
    def name(self) -> str:
        """The name of the unpacked file."""
        return self.path.rpartition("/")[2].removesuffix(".gz")


@dataclass(frozen=True, slots=True)
class FirefoxModel:
    """An entry of a registry."""

    registry: str
    """The URL of the registry."""
    pair: str
    architecture: str
    status: str
    """The state of its release, "" if it has none."""
    stated_files: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.architecture} ({self.status or 'not released'})"

    @property
    def languages(self) -> tuple[str, str]:
        """The BCP 47 tags of source and target."""
        source, _, target = self.pair.partition("-")
        return _tag(source), _tag(target)

    @property
    def sha256(self) -> str:
        """The hash of the model file, "" if the registry states none."""
        value = self._model.get("uncompressedHash")
        return value.lower() if isinstance(value, str) else ""

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller for a better model: by the state of its release, then by its size."""
        status = STATUSES.index(self.status) if self.status in STATUSES else len(STATUSES)
        size = self._model.get("uncompressedSize")
        return status, -size if isinstance(size, int) else 0

    @property
    def _model(self) -> Mapping[str, Any]:
        stated = self.stated_files.get("model")
        return stated if isinstance(stated, dict) else {}

    def files(self) -> list[RemoteFile]:
        """The files; raises CheckpointError if one that is needed is missing or unusable."""
        roles = ["model", "vocab"]
        if "vocab" not in self.stated_files:
            roles[1:] = ["srcVocab", "trgVocab"]
        if self.stated_files.get("lexicalShortlist") is not None:
            roles.append("lexicalShortlist")
        files = [self._file(role) for role in roles]
        if files[0].sha256 is None:
            raise CheckpointError(f"{self._field('model')}.uncompressedHash is missing")
        by_name = {file.name: file for file in files}
        if len(by_name) < len(set(files)):
            raise CheckpointError(f"{self._field()}: two files have the same name")
        return list(by_name.values())

    def _field(self, role: str = "") -> str:
        role = role and f".{role}"
        return f"{self.registry}: models.{self.pair}, {self.architecture}: files{role}"

    def _file(self, role: str) -> RemoteFile:
        stated = self.stated_files.get(role)
        if not isinstance(stated, dict):
            raise CheckpointError(f"{self._field(role)} is missing")
        path, size = stated.get("path"), stated.get("uncompressedSize")
        sha256 = stated.get("uncompressedHash")
        if not isinstance(path, str) or not all(map(is_plain_name, path.split("/"))):
            raise CheckpointError(f"{self._field(role)}.path is {path!r}, want a relative path")
        if size is not None and (type(size) is not int or size < 1):
            raise CheckpointError(f"{self._field(role)}.uncompressedSize is {size!r}")
        if sha256 is not None and not (isinstance(sha256, str) and SHA256.fullmatch(sha256)):
            raise CheckpointError(f"{self._field(role)}.uncompressedHash is no SHA-256: {sha256!r}")
        file = RemoteFile(path, size, sha256 and sha256.lower())
        if not is_plain_name(file.name):
            raise CheckpointError(f"{self._field(role)}.path is {path!r}, which has no name")
        return file


class Registry:
    """A registry that has been read."""

    def __init__(self, url: str, content: bytes) -> None:
        """Raises CheckpointError for content of another shape."""
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{url} is not JSON: {error}") from error
        base, models = (
            (fields.get("baseUrl"), fields.get("models")) if isinstance(fields, dict) else (0, 0)
        )
        if not isinstance(base, str) or not isinstance(models, dict):
            raise CheckpointError(
                f"{url} is not a registry of Firefox Translations: want an object with baseUrl "
                "and models"
            )
        self.url, self.base_url = url, base.rstrip("/")
        self._models: Mapping[str, Any] = models

    def choose(self, pair: str, choice: str | None = None) -> FirefoxModel:
        """The best released model of a pair; raises CheckpointError.

        ``choice`` is an architecture, such as ``tiny``, or the hash of a model file. It may choose
        a model that is not released.
        """
        models = list(self._entries(self._key(pair)))
        if choice is None:
            chosen = [model for model in models if model.status.startswith(RELEASED)]
        else:
            wanted = choice.lower()
            chosen = [m for m in models if wanted in (m.architecture.lower(), m.sha256)]
        if not chosen:
            problem = "no model is released" if choice is None else f"no model is {choice}"
            raise CheckpointError(
                f"firefox:{pair}: {problem}; --revision takes one of: "
                f"{', '.join(map(str, models)) or 'none'}"
            )
        return min(chosen, key=lambda model: model.rank)

    def _key(self, pair: str) -> str:
        by_pair = {_normalized(key): key for key in self._models}
        key = by_pair.get(_normalized(pair))
        if key is None:
            near = ", ".join(_near(pair, list(self._models)))
            raise CheckpointError(
                f"firefox:{pair}: {self.url} has no such pair of languages"
                f"{near and '; near ones: '}{near}"
            )
        return key

    def _entries(self, key: str) -> Iterator[FirefoxModel]:
        entries = self._models[key]
        for entry in entries if isinstance(entries, list) else [None]:
            if not isinstance(entry, dict) or not isinstance(entry.get("files"), dict):
                raise CheckpointError(f"{self.url}: models.{key} is not a list of models")
            architecture, status = entry.get("architecture"), entry.get("releaseStatus")
            if not isinstance(architecture, str) or not isinstance(status, str | None):
                raise CheckpointError(
                    f"{self.url}: models.{key}: architecture is {architecture!r}, releaseStatus "
                    f"is {status!r}; want texts"
                )
            yield FirefoxModel(self.url, key, architecture, status or "", entry["files"])


def _normalized(pair: str) -> str:
    return pair.lower().replace("_", "-")


def _near(pair: str, pairs: Sequence[str]) -> list[str]:
    """Similar pairs, then pairs with one of the languages."""
    similar = difflib.get_close_matches(pair, pairs, MAX_NEAR)
    source, _, target = pair.partition("-")
    related = [p for p in sorted(pairs) if p.split("-")[0] == source or p.endswith(f"-{target}")]
    return list(dict.fromkeys([*similar, *related]))[:MAX_NEAR]


def _tag(code: str) -> str:
    return langcodes.standardize_tag(code.replace("_", "-"))
