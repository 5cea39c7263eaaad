"""Reads checkpoints of OpenNMT-py: options, vocabularies and tensors of one ``.pt`` file.

The file is a pickle. Of its classes, only tensors, plain data and `argparse.Namespace`, which holds
the options, are allowed. The objects that held vocabularies before version 3 are read as `Inert`
ones. So nothing from the file runs.
"""

import argparse
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config

SUFFIX = ".pt"
GENERATOR = "generator."
"""Prefix of the names of the output layer's tensors."""
START, DEFAULT_START = "decoder_start_token", "<s>"


OLD_NAMES = (
    "functools.partial",
    "onmt.inputters.inputter.make_src",
    "onmt.inputters.inputter.make_tgt",
    "onmt.inputters.text_dataset.TextMultiField",
    "onmt.inputters.text_dataset._feature_tokenize",
    "torchtext.data.field.Field",
    "torchtext.data.field.LabelField",
    "torchtext.data.field.RawField",
    "torchtext.data.utils._split_tokenizer",
    "torchtext.vocab.Vocab",
)
"""Classes and functions in the vocabularies of versions 1 and 2."""
MAX_NESTING = 8
"""More objects than are around a list of tokens."""


class Inert:
    """Stands for an object of a class, or for a function, that is not to run."""

    def __init__(self, *_: object) -> None:
        """Takes what the constructor of the class, or the function, takes."""
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        """Take the fields of an object."""
        self.fields = state if isinstance(state, dict) else {}


class OpenNMTFile:
    """The content of a checkpoint. Tensors are mapped, and read when they are asked for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError for a damaged file and for one with other classes."""
        self.path = checkpoint.path(_only(checkpoint))
        content = _load(self.path)
        if not isinstance(content, dict) or not {"opt", "vocab"} <= content.keys():
            raise CheckpointError(f"{self.path} is no checkpoint of OpenNMT-py: no opt or no vocab")
        options = content["opt"]
        fields = vars(options) if isinstance(options, argparse.Namespace) else options
        self.config = Config(self.path, _dictionary(self.path, "opt", fields))
        self._vocabularies = _dictionary(self.path, "vocab", _by_side(content["vocab"]))
        self.tensors = _tensors(checkpoint, self.path, content)
        self._shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return self._shapes

    def read(self, name: str) -> Tensor:
        """One tensor, in fp32."""
        return self.tensors[name].float()

    def tokens(self, side: str) -> Sequence[str]:
        """The tokens of "src" or "tgt" by id; raises CheckpointError."""
        tokens = _unwrapped(self._vocabularies.get(side))
        match tokens:
            case [(str(), _), *_]:
                raise CheckpointError(f"{self.path}: features of {side} tokens are not supported")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise CheckpointError(f"{self.path}: the vocabulary {side} is not a list of tokens")
        if len(set(tokens)) < len(tokens):
            raise CheckpointError(f"{self.path}: a token is twice in the vocabulary {side}")
        if self._vocabularies.get("src_feats"):
            raise CheckpointError(f"{self.path}: source features (src_feats) are not supported")
        return tokens

    def start_token(self) -> str:
        """The first input of the decoder; raises CheckpointError."""
        token = self._vocabularies.get(START, self.config.get(START, DEFAULT_START))
        if not isinstance(token, str) or not token:
            raise CheckpointError(f"{self.path}: {START} is {token!r}, want a token")
        return token

    def options(self) -> dict[str, Any]:
        """The fields of ``opt``."""
        return {name: self.config.get(name) for name in self.config}


def _by_side(vocabularies: object) -> object:
    """Vocabularies by side, also of the first versions, which have pairs of name and vocabulary."""
    if not isinstance(vocabularies, list):
        return vocabularies
    is_pair = [isinstance(each, tuple) and len(each) == 2 for each in vocabularies]
    return dict(vocabularies) if all(is_pair) else vocabularies


def _unwrapped(vocabulary: object) -> object:
    """The list of tokens in the objects of versions 1 and 2 around it."""
    for _ in range(MAX_NESTING):
        match vocabulary:
            case (
                Inert(fields={"fields": inner})
                | Inert(fields={"vocab": inner})
                | Inert(fields={"itos": inner})
                | [(str(), inner)]
            ):
                vocabulary = inner
            case _:
                break
    return vocabulary


def checkpoint_files(checkpoint: Checkpoint) -> list[str]:
    """The names of the ``.pt`` files in a folder."""
    return [name for name in checkpoint.names() if name.endswith(SUFFIX)]


def _only(checkpoint: Checkpoint) -> str:
    if checkpoint.file:
        return checkpoint.file
    first, *others = checkpoint_files(checkpoint)
    if others:
        raise CheckpointError(
            f"{checkpoint.folder} has several checkpoints: {', '.join([first, *others])}; give "
            "the path of one of them"
        )
    return first


def _load(path: Path) -> Any:
    try:
        inert = [(Inert, name) for name in OLD_NAMES]
        with torch.serialization.safe_globals([argparse.Namespace, *inert]):
            return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # Damaged pickles raise errors of many kinds.
        found = re.search(r"Unsupported global: GLOBAL ([\w.]+)", str(error))
        if found is None:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path} cannot be read: {reason}") from error
        name = found[1]
        raise CheckpointError(
            f"{path} has objects of {name}, which is not read, because that would run code"
        ) from error


def _dictionary(path: Path, name: str, value: object) -> dict[str, Any]:
    """An entry of the file; raises CheckpointError if it is no dictionary with names."""
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise CheckpointError(f"{path}: {name} is of the type {kind}, want a dictionary")
    for key in value:
        if not isinstance(key, str):
            raise CheckpointError(f"{path}: {name} has the key {key!r}, want strings as keys")
    return value


def _tensors(checkpoint: Checkpoint, path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, of the file itself or of files of safetensors beside it."""
    is_whole = "model" in content
    stored = _own_tensors(path, content) if is_whole else _tensors_beside(checkpoint, path)
    tensors: dict[str, Tensor] = {}
    for file, name, tensor in stored:
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: model or generator holds something else than tensors")
        if name in tensors:
            raise CheckpointError(f"{file}: the checkpoint has the tensor {name} twice")
        tensors[name] = tensor
    if not tensors:
        raise CheckpointError(
            f"{path} has no tensors (model), and there is no {path.stem}.safetensors beside it"
        )
    return tensors


def _own_tensors(path: Path, content: dict[str, Any]) -> Iterator[tuple[Path, str, object]]:
    for name, tensor in _dictionary(path, "model", content["model"]).items():
        yield path, name, tensor
    if (generator := content.get("generator")) is not None:
        for name, tensor in _dictionary(path, "generator", generator).items():
            yield path, GENERATOR + name.removeprefix("0."), tensor


def _tensors_beside(checkpoint: Checkpoint, path: Path) -> Iterator[tuple[Path, str, object]]:
    begin, end = f"{path.stem}.", ".safetensors"
    for file in checkpoint.names():
        if file.startswith(begin) and file.endswith(end):
            part = checkpoint.path(file)
            try:
                tensors = load_file(part)
            except SafetensorError as error:
                raise CheckpointError(f"{part}: {error}") from error
            for name, tensor in tensors.items():
                yield part, name, tensor
