"""Bundles on disk: finding them, reading their manifests strictly, and checking every file.

Nothing in a bundle is believed before it was checked: names, paths, sizes, hashes. Knows no model
runtime and runs nothing that a bundle contains.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attendant.v1 import bundle_pb2, embedding_pb2
from google.protobuf import json_format

from attendant_server.reasons import reason_of

MANIFEST_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_TOKENS = 65_536
"""Largest limit of tokens that a manifest may give; memory is taken for that many."""
PRECISIONS = ("fp32", "int8", "fp16")
PREFERRED_PRECISIONS = {"cpu": ("int8", "fp32", "fp16"), "cuda": ("fp16",)}
"""What each device can run, best first. ONNX Runtime's kernels that keep caches in place on a GPU
take fp16 only, and its int8 products run on the host."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}")
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRANSLATION_GRAPHS = ("encoder", "decoder_step", "scorer")
_TRANSLATION_TOKENS = ("pad_id", "bos_id", "eos_id", "unk_id")
_EMBEDDING_TOKENS = ("pad_id", "cls_id", "sep_id", "unk_id")


class BundleError(Exception):
    """A bundle cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was read, and the precision of it that will be run."""

    directory: Path
    """Absolute."""
    manifest: bundle_pb2.Manifest
    precision: str

    @cached_property
    def key(self) -> str:
        """The full name of the model: ``name/version``."""
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def graphs(self) -> bundle_pb2.PrecisionGraphs:
        """The graphs of the precision in use."""
        return next(p for p in self.manifest.precisions if p.name == self.precision)

    def graph_path(self, graph: str) -> Path:
        """Absolute path of a graph's ONNX file; ``graph`` is a field name of PrecisionGraphs."""
        found: bundle_pb2.Graph = getattr(self.graphs, graph)
        return self.directory / found.path

    def has_graph(self, graph: str) -> bool:
        """Whether the precision in use has this graph."""
        return self.graphs.HasField(graph)  # type: ignore[arg-type]

    def check_files(self) -> None:
        """Compare every listed file with its size and SHA-256, and refuse all other files.

        Raises BundleError.
        """
        for file in self.manifest.files:
            _check_file(self.directory, file)
        _check_nothing_else(self.directory, {MANIFEST_NAME, *(f.path for f in self.manifest.files)})


def find_bundles(root: Path, wanted: Sequence[str]) -> list[Path]:
    """Folders of the bundles under ``root``, or of those in ``wanted`` (``name[/version]``)."""
    found = {
        f"{manifest.parts[-3]}/{manifest.parts[-2]}": manifest.parent
        for manifest in sorted(root.glob(f"*/*/{MANIFEST_NAME}"))
        if _NAME.fullmatch(manifest.parts[-3]) and _VERSION.fullmatch(manifest.parts[-2])
    }
    if not found:
        raise BundleError(f"{root}: no bundles, which would be <name>/<version>/{MANIFEST_NAME}")
    for model in wanted:
        if not any(_matches(model, key) for key in found):
            raise BundleError(f"{root}: no bundle {model}, only {', '.join(sorted(found))}")
    return [
        directory
        for key, directory in found.items()
        if not wanted or any(_matches(model, key) for model in wanted)
    ]


def read_bundle(directory: Path, precision: str, device: str) -> Bundle:
    """Read a bundle's manifest and choose the precision; raises BundleError.

    ``precision`` may be ``auto``; ``device`` is ``cpu`` or ``cuda``. The files that the manifest
    lists are not opened: `Bundle.check_files` must come before any use of them.
    """
    directory = directory.resolve()
    manifest = bundle_pb2.Manifest()
    try:
        json_format.Parse(_read_manifest(directory), manifest)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{directory / MANIFEST_NAME}: {reason_of(error)}") from error
    problem = next(_problems(manifest, directory), None)
    if problem is not None:
        raise BundleError(f"{directory / MANIFEST_NAME}: {problem}")
    return Bundle(directory, manifest, _choose_precision(manifest, directory, precision, device))


def _matches(model: str, key: str) -> bool:
    return model in (key, key.partition("/")[0])


def _read_manifest(directory: Path) -> str:
    path = directory / MANIFEST_NAME
    status = _regular_file(directory, MANIFEST_NAME)
    if status.st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path}: larger than {MAX_MANIFEST_BYTES} bytes")
    with _named(path):
        return path.read_text(encoding="utf-8")


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


def _check_file(directory: Path, file: bundle_pb2.BundleFile) -> None:
    path = directory / file.path
    size_bytes = _regular_file(directory, file.path).st_size
    if size_bytes != file.size_bytes:
        raise BundleError(f"{path}: has {size_bytes} bytes instead of {file.size_bytes}")
    with _named(path), path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if sha256 != file.sha256:
        raise BundleError(f"{path}: its SHA-256 is not the one in the manifest")


def _check_nothing_else(directory: Path, known: set[str]) -> None:
    """Refuse files that nobody has checked: the external data of a graph could name one."""

    def refuse(error: OSError) -> None:
        raise BundleError(f"{error.filename}: {error.strerror or reason_of(error)}") from error

    for folder, folders, names in os.walk(directory, onerror=refuse):
        for path in (Path(folder, name) for name in folders + names):
            is_known = path.relative_to(directory).as_posix() in known
            if not is_known and (path.is_symlink() or not path.is_dir()):
                raise BundleError(f"{path}: is not listed in {MANIFEST_NAME}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of the operating system name the file, as a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or reason_of(error)}") from error


def _regular_file(directory: Path, relative: str) -> os.stat_result:
    """Status of a file that really lies in ``directory``, not behind a link of any kind."""
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


def _problems(manifest: bundle_pb2.Manifest, directory: Path) -> Iterator[str]:
    """What is wrong with a manifest, in an order in which later checks may trust earlier ones."""
    if manifest.manifest_version != MANIFEST_VERSION:
        yield f"manifest_version {manifest.manifest_version} is not {MANIFEST_VERSION}"
    yield from _name_problems(manifest, directory)
    yield from _file_problems(manifest)
    if manifest.kind == bundle_pb2.MODEL_KIND_TRANSLATION:
        yield from _translation_problems(manifest)
    elif manifest.kind == bundle_pb2.MODEL_KIND_EMBEDDING:
        yield from _embedding_problems(manifest)
    else:
        yield "kind is missing"
    yield from _reference_problems(manifest)


def _name_problems(manifest: bundle_pb2.Manifest, directory: Path) -> Iterator[str]:
    if not _NAME.fullmatch(manifest.name):
        yield "name has other characters than lower-case letters, digits and hyphens"
    if not _VERSION.fullmatch(manifest.version):
        yield "version has other characters than letters, digits, dots and hyphens"
    if (manifest.name, manifest.version) != (directory.parent.name, directory.name):
        folder = f"{directory.parent.name}/{directory.name}"
        yield f"name and version must be those of the folder, {folder}"


def _file_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    seen: set[str] = set()
    for file in manifest.files:
        if not all(_PATH_PART.fullmatch(part) for part in file.path.split("/")):
            yield f"files: the path {file.path!r} is not a plain path inside the bundle"
        if file.path in seen or file.path == MANIFEST_NAME:
            yield f"files: {file.path} is listed twice or is the manifest itself"
        if not _SHA256.fullmatch(file.sha256):
            yield f"files: sha256 of {file.path} is not 64 lower-case hexadecimal digits"
        seen.add(file.path)
    names = [precision.name for precision in manifest.precisions]
    if not names or len(set(names)) != len(names) or not set(names) <= set(PRECISIONS):
        yield f"precisions must have one or more of {', '.join(PRECISIONS)}, each once"


def _translation_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    if not manifest.HasField("translation_sizes"):
        yield "translation_sizes is missing"
    yield from _token_problems(manifest, _TRANSLATION_TOKENS, manifest.translation_sizes.vocab_size)
    yield from _limit_problems(manifest, ("max_source_tokens", "max_target_tokens"))
    if not manifest.target_tokenizer:
        yield "target_tokenizer is missing"
    yield from _graph_problems(manifest, _TRANSLATION_GRAPHS)


def _embedding_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    if not manifest.HasField("embedding_sizes"):
        yield "embedding_sizes is missing"
    yield from _token_problems(manifest, _EMBEDDING_TOKENS, manifest.embedding_sizes.vocab_size)
    yield from _limit_problems(manifest, ("max_tokens",))
    if manifest.default_pooling == embedding_pb2.POOLING_UNSPECIFIED:
        yield "default_pooling is missing"
    elif manifest.default_pooling not in embedding_pb2.Pooling.values():
        yield f"default_pooling has no value {manifest.default_pooling}"
    yield from _graph_problems(manifest, ("embedder",))
    with_head = [p for p in manifest.precisions if p.HasField("mlm_head")]
    if with_head and not manifest.special_tokens.HasField("mask_id"):
        yield "special_tokens.mask_id is missing, but there is an mlm_head"


def _limit_problems(manifest: bundle_pb2.Manifest, required: Sequence[str]) -> Iterator[str]:
    for name in required:
        if not 1 <= getattr(manifest.limits, name) <= MAX_TOKENS:
            yield f"limits.{name} must be between 1 and {MAX_TOKENS}"


def _token_problems(
    manifest: bundle_pb2.Manifest, required: Sequence[str], vocab_size: int
) -> Iterator[str]:
    for name in required:
        if not manifest.special_tokens.HasField(name):  # type: ignore[arg-type]
            yield f"special_tokens.{name} is missing"
    for field, token_id in manifest.special_tokens.ListFields():
        if token_id >= vocab_size:
            yield f"special_tokens.{field.name} is outside the vocabulary"


def _graph_problems(manifest: bundle_pb2.Manifest, required: Sequence[str]) -> Iterator[str]:
    for precision in manifest.precisions:
        for graph in required:
            if not precision.HasField(graph):  # type: ignore[arg-type]
                yield f"the {precision.name} precision has no graph {graph}"


def _reference_problems(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    listed = {file.path for file in manifest.files}
    for path in _referred_paths(manifest):
        if path not in listed:
            yield f"{path!r} is used but not among files"


def _referred_paths(manifest: bundle_pb2.Manifest) -> Iterator[str]:
    yield manifest.source_tokenizer
    if manifest.target_tokenizer:
        yield manifest.target_tokenizer
    if manifest.reference_outputs:
        yield manifest.reference_outputs
    for precision in manifest.precisions:
        yield precision.weights
        for _, value in precision.ListFields():
            if isinstance(value, bundle_pb2.Graph):
                yield value.path
