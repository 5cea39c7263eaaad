"""A checkpoint, laid out as on model hubs. Executes nothing from it."""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from attendant.v1.bundle_pb2 import BundleFile
from attendant_manifest.part_rules import MAX_LAYERS
from safetensors import SafetensorError, safe_open
from torch import Tensor

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
WEIGHTS = (SAFETENSORS, f"{SAFETENSORS}.index.json", PICKLE, f"{PICKLE}.index.json")
"""Names of weight files, in the order of preference. An index lists the files of the weights."""

OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""The present ends of the names of tensors, by those that old checkpoints have."""
MAX_INTEGER = 2**31 - 1


class CheckpointError(Exception):
    """A checkpoint is damaged, incomplete or of a kind that is not supported."""


@dataclass(frozen=True, slots=True)
class Statements:
    """Statements of the source of a checkpoint that are in none of its files."""

    license: str | None = None
    languages: tuple[str, ...] = ()
    """Of source and target of a translation model."""
    credits: tuple[str, ...] = ()


class Checkpoint:
    """The files of one checkpoint. Weights are read when they are asked for."""

    def __init__(
        self,
        folder: Path,
        source: str = "",
        revision: str = "",
        statements: Statements = Statements(),
        file: str = "",
    ) -> None:
        """Raises CheckpointError if ``folder`` does not exist.

        ``source`` is the location for manifests, and ``revision`` its revision; by default, the
        folder's name and none. ``file`` is the one file of the folder that is the checkpoint, if
        the user named a file.
        """
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder")
        self.folder = folder
        self.file = file
        self.location = folder / file
        """The path that `open_checkpoint` takes for the same local files."""
        self.title = source or str(self.location)
        """The checkpoint in messages."""
        self.source = source or folder.resolve().name
        self.revision = revision
        self.statements = statements
        self._used: dict[str, None] = {}  # in order

    @property
    def name(self) -> str:
        """The last part of the source, such as ``opus-mt-en-de``."""
        return self.source.rpartition("/")[2]

    def find(self, name: str) -> Path | None:
        """The path of a file, or None if the checkpoint does not have it."""
        path = self.folder / name
        return path if path.is_file() else None

    def names(self) -> list[str]:
        """The names of all files, without those in folders, sorted."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this file."""
        return self.find(name) is not None

    def path(self, name: str) -> Path:
        """The path of a file that the import uses. Raises CheckpointError if it is missing."""
        path = self.find(name)
        if path is None:
            raise CheckpointError(f"{self.title}: {name} is missing")
        self._used[name] = None
        return path

    def json(self, name: str) -> Any:
        """The content of a JSON file. Raises CheckpointError if it is missing or damaged."""
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{self.folder / name} is not JSON: {error}") from error

    def json_object(self, name: str) -> dict[str, Any]:
        """Like `json`, for a file that holds one object."""
        content = self.json(name)
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.folder / name} is not a JSON object")
        return content

    def options(self, name: str) -> "Config":
        """The fields of a JSON file that a checkpoint may lack; none if it does."""
        return Config(self.folder / name, self.json_object(name) if self.has(name) else {})

    @cached_property
    def config(self) -> "Config":
        """The configuration of the network."""
        return Config(self.folder / CONFIG, self.json_object(CONFIG))

    @cached_property
    def tokenizer_config(self) -> "Config":
        """The options of the tokenizer, which a checkpoint may lack."""
        return self.options(TOKENIZER_CONFIG)

    @property
    def tokenizer_class(self) -> "Config":
        """The configuration that states the ``tokenizer_class``: the tokenizer's, else the model's.

        Neither may state one.
        """
        tokenizer = self.tokenizer_config
        return tokenizer if "tokenizer_class" in tokenizer else self.config

    @cached_property
    def weights(self) -> "Weights":
        """The weights. Raises CheckpointError if there are none or a file cannot be read."""
        return self.weights_in("")

    def weights_in(self, folder: str) -> "Weights":
        """The weights in a folder, "" for the checkpoint's own. Raises CheckpointError."""
        prefix = f"{folder}/" if folder else ""
        name = next((prefix + each for each in WEIGHTS if self.has(prefix + each)), None)
        if name is None:
            where = f"{self.title}/{folder}" if folder else self.title
            raise CheckpointError(f"{where} has no weights: none of {', '.join(WEIGHTS)}")
        names = [name]
        if name.endswith(".index.json"):
            index = self.json_object(name).get("weight_map")
            if not isinstance(index, dict) or not all(map(is_plain_name, index.values())):
                raise CheckpointError(f"{self.folder / name} is not an index of weights")
            names = sorted(prefix + each for each in set(index.values()))
        return Weights([self.path(each) for each in names])

    def release_weights(self) -> None:
        """Free the memory of the weights, which are read again when they are asked for."""
        self.__dict__.pop("weights", None)

    def used_files(self) -> list[BundleFile]:
        """Names, sizes and hashes of the files that were read."""
        return [_described(self.folder, name) for name in self._used]


class Config:
    """The fields of a configuration, each read by the importer or stated as what it must be."""

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self.path, self._fields = path, fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    @property
    def names(self) -> list[str]:
        """The names of all fields."""
        return list(self._fields)

    def get(self, name: str, default: Any = None) -> Any:
        """A field; ``default`` if it is absent or null."""
        value = self._fields.get(name)
        return default if value is None else value

    def integer(
        self, name: str, default: int | None = None, minimum: int = 1, maximum: int = MAX_INTEGER
    ) -> int:
        """A field that is an integer from ``minimum`` to ``maximum``. Raises CheckpointError."""
        value = self.get(name, default)
        if type(value) is not int or not minimum <= value <= maximum:
            raise CheckpointError(
                f"{self.path}: {name} is {value!r}, want an integer from {minimum} to {maximum}"
            )
        return value

    def num_layers(self, name: str, default: int | None = None) -> int:
        """A field that is a number of layers, which all take memory. Raises CheckpointError."""
        return self.integer(name, default, maximum=MAX_LAYERS)

    def number(self, name: str, default: float | None = None) -> float:
        """A field that is a positive number. Raises CheckpointError."""
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise CheckpointError(f"{self.path}: {name} is {value!r}, want a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """A field that is true or false. Raises CheckpointError."""
        value: bool = self.choice(name, {True: True, False: False}, default)
        return value

    def choice(self, name: str, choices: Mapping[Any, Any], default: Any = None) -> Any:
        """What the value of a field means. Raises CheckpointError that lists the known values."""
        value = self.get(name, default)
        try:
            return choices[value]
        except (KeyError, TypeError):
            known = ", ".join(map(repr, choices))
            raise CheckpointError(
                f"{self.path}: {name} is {value!r}, which is not supported; supported: {known}"
            ) from None

    def require(self, **wanted: Any) -> None:
        """Raise CheckpointError unless these fields, if they are given, have these values."""
        for name, value in wanted.items():
            self.choice(name, {value: value}, default=value)

    def require_empty(self, name: str) -> None:
        """Raise CheckpointError for a field with options, if it has any."""
        if options := self.get(name):
            raise CheckpointError(f"{self.path}: {name} is {options!r}, want {{}}")


class Weights:
    """Tensors by name, in files of safetensors or in pickles of tensors only.

    Tensors with the names of old checkpoints, such as bert-base-uncased, have the present ones.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        self._stored_names: dict[str, str] = {}
        for path in paths:
            for stored, shape in _read_shapes(path, self._tensors):
                name = _present_name(stored)
                if name in self._shapes:
                    raise CheckpointError(f"{path}: {stored} is given twice")
                self._shapes[name], self._files[name] = shape, path
                self._stored_names[name] = stored

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return self._shapes

    def leave_out(self, names: Iterable[str]) -> None:
        """Forget tensors, so that they are not missed."""
        for name in names:
            del self._shapes[name]

    def read(self, name: str) -> Tensor:
        """One tensor, in fp32."""
        stored = self._stored_names[name]
        if stored in self._tensors:
            return self._tensors[stored].float()
        with safe_open(self._files[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(stored)
        return tensor.float()


def _present_name(name: str) -> str:
    for old, present in OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + present
    return name


def _read_shapes(path: Path, tensors: dict[str, Tensor]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names and shapes in one file. Tensors of a pickle are put into ``tensors``."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as opened:
                names = opened.keys()
                shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
        except SafetensorError as error:
            raise CheckpointError(f"{path}: {error}") from error
        yield from shapes.items()
        return
    try:
        content = torch.load(
            *(path, "cpu"), weights_only=True, mmap=zipfile.is_zipfile(path)
        )  # Only zipped pickles can be mapped.
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} is not a file of tensors only: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path} holds something else than named tensors")
    if sparse := [name for name, tensor in content.items() if tensor.layout != torch.strided]:
        raise CheckpointError(f"{path} holds sparse tensors, which are not supported: {sparse}")
    tensors.update(content)
    yield from ((name, tuple(tensor.shape)) for name, tensor in content.items())


def _described(folder: Path, name: str) -> BundleFile:
    with (folder / name).open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return BundleFile(path=name, sha256=sha256, size_bytes=(folder / name).stat().st_size)


def is_plain_name(name: object) -> bool:
    """Whether ``name`` names a file or folder in the checkpoint's folder, not elsewhere."""
    return isinstance(name, str) and name == Path(name).name and name not in ("", "..")
