"""Bundles on disk: finds them, reads their manifests and checks every file.

Nothing in a bundle is trusted before it is checked: names, paths, sizes, hashes. Knows no model
runtime and executes nothing from a bundle.
"""

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from attendant.v1 import bundle_pb2
from attendant_manifest import ManifestError, parse_manifest
from attendant_manifest.rules import (
    MANIFEST_NAME,
    NAME,
    REPLACED_SUFFIX,
    SIGNATURE_NAME,
    VERSION,
    problems,
)
from attendant_manifest.signatures import MAX_SIGNATURE_FILE_BYTES
from attendant_manifest.translation_rules import glossary_path

from attendant_server.hashed_copies import hash_of
from attendant_server.reasons import reason_of
from attendant_server.system.temporary_folders import temporary_folder

logger = logging.getLogger(__name__)

MAX_MANIFEST_BYTES = 16 * 1024 * 1024
PREFERRED_PRECISIONS = {"cpu": ("int8", "fp32", "fp16"), "cuda": ("fp16",)}
"""The precisions that each device can run, best first. On a GPU, ONNX Runtime's kernels with
in-place caches support fp16 only, and its int8 matrix products run on the host."""


class BundleError(Exception):
    """A bundle cannot be used; the message names the file and the reason."""


class ManifestKeys(Protocol):
    """The keys that may sign manifests."""

    def check(self, manifest: bytes, signature_file: bytes) -> None:
        """Raise ValueError unless one of the keys signed this manifest."""


@dataclass(frozen=True)
class Bundle:
    """A bundle with its checked manifest and its chosen precision."""

    directory: Path
    """Absolute."""
    manifest: bundle_pb2.Manifest
    precision: str
    copies: Path | None = None
    """Folder with checked copies of the files, see `checked_copy`."""
    has_loaded_files_only: bool = False
    """Whether listed files that no server reads may be missing, as in a cache of downloads."""

    @cached_property
    def key(self) -> str:
        """The full name of the model: ``name/version``."""
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def graphs(self) -> bundle_pb2.PrecisionGraphs:
        """The graphs of the precision in use."""
        return next(p for p in self.manifest.precisions if p.name == self.precision)

    @property
    def all_graphs(self) -> list[bundle_pb2.Graph]:
        """All graphs of the precision in use."""
        fields = [value for _, value in self.graphs.ListFields()]
        graphs = [value for value in fields if isinstance(value, bundle_pb2.Graph)]
        return [*graphs, *(step.graph for step in self.graphs.steps)]

    def path_of(self, file: str) -> Path:
        """Absolute path of a file of the bundle, or of its checked copy."""
        return (self.copies or self.directory) / file

    def step_path(self, step: bundle_pb2.StepGraph) -> Path:
        """Absolute path of a step's ONNX file."""
        return self.path_of(step.graph.path)

    def graph_path(self, graph: str) -> Path:
        """Absolute path of a graph's ONNX file; ``graph`` is a field name of PrecisionGraphs."""
        found: bundle_pb2.Graph = getattr(self.graphs, graph)
        return self.path_of(found.path)

    def has_graph(self, graph: str) -> bool:
        """Whether the precision in use has this graph."""
        return self.graphs.HasField(graph)  # type: ignore[arg-type]

    @contextmanager
    def checked_copy(self) -> Iterator["Bundle"]:
        """This bundle with all files checked, whose files are private copies until the block ends.

        A file that changes after it was hashed, or while it is mapped, thus changes nothing.
        Sessions keep the copies that they map. Raises BundleError.
        """
        prefix = f"attendant-{self.manifest.name}-{self.manifest.version}-"
        with temporary_folder(prefix) as folder:
            self._check_room(folder)
            self.check_files(folder)
            yield replace(self, copies=folder)

    def _check_room(self, folder: Path) -> None:
        """Raise BundleError unless the file system of ``folder`` has room for the copies."""
        needed = self.num_loaded_bytes
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise BundleError(
                f"{self.directory}: {tempfile.gettempdir()} has {free} free bytes, and loading the "
                f"bundle needs {needed}; TMPDIR names another folder"
            )

    @property
    def num_loaded_bytes(self) -> int:
        """Bytes of the files that a server reads."""
        return sum(file.size_bytes for file in self.loaded_files())

    def loaded_files(self) -> list[bundle_pb2.BundleFile]:
        """The files that a server reads."""
        manifest, graphs = self.manifest, [graph.path for graph in self.all_graphs]
        tokenizers = manifest.source_tokenizer, manifest.target_tokenizer
        others = manifest.reference_outputs, *map(glossary_path, manifest.glossaries)
        loaded = {*graphs, *self.graphs.weights, *tokenizers, *others}
        return [file for file in manifest.files if file.path in loaded]

    def check_files(self, copies: Path | None = None) -> None:
        """Check the size and SHA-256 of every file that must be there, and refuse unlisted files.

        The files that a server loads are copied to the folder ``copies``, from the bytes that are
        hashed. Raises BundleError.
        """
        loaded = self.loaded_files()
        copied = {file.path for file in loaded} if copies is not None else ()
        files = loaded if self.has_loaded_files_only else self.manifest.files
        for file in files:
            copy = copies / file.path if copies is not None and file.path in copied else None
            _check_file(self.directory, file, copy)
        listed = {file.path for file in files}
        _check_nothing_else(self.directory, {MANIFEST_NAME, SIGNATURE_NAME, *listed})


def find_bundles(root: Path, wanted: Sequence[str]) -> list[Path]:
    """Folders of the bundles under ``root``, or only of ``wanted`` (``name[/version]``).

    Logs the bundles that killed rebuilds left in other folders. Raises BundleError if there are
    none, or if a folder cannot be read.
    """
    for left in sorted(root.glob(f"*/.*{REPLACED_SUFFIX}/{MANIFEST_NAME}")):
        logger.warning("event=bundle_left_by_killed_rebuild folder=%s", left.parent)
    found = {f"{folder.parent.name}/{folder.name}": folder for folder in _bundle_folders(root)}
    if not found:
        raise BundleError(f"{root}: no bundles; expected <name>/<version>/{MANIFEST_NAME}")
    for model in wanted:
        if not any(_matches(model, key) for key in found):
            raise BundleError(f"{root}: no bundle {model}, only {', '.join(sorted(found))}")
    return [directory for key, directory in found.items() if is_wanted(key, wanted)]


def _bundle_folders(root: Path) -> Iterator[Path]:
    """The folders ``<name>/<version>/`` with a manifest; an unreadable one is a BundleError."""
    for name in sorted(root.glob("*")):
        with _named(name):
            if NAME.fullmatch(name.name) and name.is_dir():
                versions = [each for each in name.iterdir() if VERSION.fullmatch(each.name)]
                yield from (each for each in sorted(versions) if (each / MANIFEST_NAME).exists())


def read_bundle(
    directory: Path, precision: str, device: str, keys: ManifestKeys | None = None
) -> Bundle:
    """Read a bundle's manifest and choose the precision; raises BundleError.

    ``precision`` may be ``auto``; ``device`` is ``cpu`` or ``cuda``. With ``keys``, the manifest is
    parsed only if it has a valid signature. The listed files are not opened: call
    `Bundle.check_files` before any use of them.
    """
    directory = directory.resolve()
    content = read_small(directory, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    if keys is not None:
        _check_signature(directory, content, keys)
    try:
        manifest = parse_manifest(content.decode("utf-8"))
    except (ManifestError, UnicodeDecodeError) as error:
        raise BundleError(f"{directory / MANIFEST_NAME}: {reason_of(error)}") from error
    problem = next(_problems(manifest, directory), None)
    if problem is not None:
        raise BundleError(f"{directory / MANIFEST_NAME}: {problem}")
    return Bundle(directory, manifest, _choose_precision(manifest, directory, precision, device))


def _problems(manifest: bundle_pb2.Manifest, directory: Path) -> Iterator[str]:
    """Broken rules of the manifest, and parts that this server does not support."""
    yield from problems(manifest)
    if (manifest.name, manifest.version) != (directory.parent.name, directory.name):
        folder = f"{directory.parent.name}/{directory.name}"
        yield f"name and version must be those of the folder, {folder}"
    yield from _unsupported_fields(manifest)


def _unsupported_fields(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    """Fields that the server does not apply although they change outputs."""
    applied = {
        "decoding": {
            "start_token_id",
            "forced_token_ids",
            "suppressed_token_ids",
            "beam_size",
            "length_penalty",
            "early_stopping",
            "no_repeat_ngram_size",
            "repetition_penalty",
            "min_output_tokens",
        },
        "embedding": {
            "pooling",
            "normalize",
            "prompts",
            "default_prompt",
            "num_prompt_tokens",
            "trained_dimensions",
            "default_dimensions",
            "max_active_dims",
        },
        "late_interaction": {"max_query_tokens", "expands_queries", "skipped_token_ids"},
    }
    for name, fields in applied.items():
        for field, _ in getattr(manifest, name).ListFields():
            if field.name not in fields:
                yield f"{name}.{field.name} is set, which this server does not apply"


def is_wanted(key: str, wanted: Sequence[str]) -> bool:
    """Whether ``wanted`` holds a bundle's name or key, or nothing at all."""
    return not wanted or any(_matches(model, key) for model in wanted)


def _matches(model: str, key: str) -> bool:
    return model in (key, key.partition("/")[0])


def _check_signature(directory: Path, manifest: bytes, keys: ManifestKeys) -> None:
    path = directory / SIGNATURE_NAME
    if not path.exists():
        raise BundleError(f"{path}: is missing; with bundle_keys, every bundle must be signed")
    try:
        keys.check(manifest, read_small(directory, SIGNATURE_NAME, MAX_SIGNATURE_FILE_BYTES))
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def read_small(directory: Path, name: str, max_bytes: int) -> bytes:
    """The content of a regular file of at most ``max_bytes``; raises BundleError."""
    path = directory / name
    _regular_file(directory, name)
    with _named(path), path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise BundleError(f"{path}: larger than {max_bytes} bytes")
    return content


def _choose_precision(
    manifest: bundle_pb2.Manifest, directory: Path, wanted: str, device: str
) -> str:
    available = [p.name for p in manifest.precisions]
    runnable = PREFERRED_PRECISIONS[device]
    accepted = [name for name in runnable if wanted in ("auto", name)]
    chosen = next((name for name in accepted if name in available), None)
    if chosen is None:
        lacking = " or ".join(accepted) or wanted
        raise BundleError(
            f"{directory}: no precision {lacking} for {device}, which runs {', '.join(runnable)}; "
            f"the bundle has {', '.join(available)}"
        )
    return chosen


def _check_file(directory: Path, file: bundle_pb2.BundleFile, copy: Path | None) -> None:
    path = directory / file.path
    size_bytes = _regular_file(directory, file.path).st_size
    if size_bytes != file.size_bytes:
        raise BundleError(f"{path}: has {size_bytes} bytes instead of {file.size_bytes}")
    with _named(path):
        found = hash_of(path, size_bytes, copy)
    if found != file.sha256:
        raise BundleError(f"{path}: its SHA-256 is not the one in the manifest")


def _check_nothing_else(directory: Path, known: set[str]) -> None:
    """Refuse unlisted files: a graph could refer to one as external data."""

    def refuse(error: OSError) -> None:
        raise BundleError(f"{error.filename}: {error.strerror or reason_of(error)}") from error

    for folder, folders, names in os.walk(directory, onerror=refuse):
        for path in (Path(folder, name) for name in folders + names):
            is_known = path.relative_to(directory).as_posix() in known
            if not is_known and (path.is_symlink() or not path.is_dir()):
                raise BundleError(f"{path}: is not listed in {MANIFEST_NAME}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn an OSError into a BundleError that names the file."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or reason_of(error)}") from error


def _regular_file(directory: Path, relative: str) -> os.stat_result:
    """Status of a regular file in ``directory``; raises BundleError for links of any kind."""
    path = directory
    for part in relative.split("/"):
        path = path / part
        with _named(path):
            status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise BundleError(f"{path}: is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path}: is not a regular file")
    if status.st_nlink != 1:
        raise BundleError(f"{path}: has other names (hard links)")
    return status
