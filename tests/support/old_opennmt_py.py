"""Checkpoints in the format of versions 1 and 2 of OpenNMT-py, whose vocabularies are objects.

The pickles name the classes of ``torchtext`` and ``onmt``, which need not be installed.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.support.opennmt_py_files import OPTIONS, WIDTH, random_tensors

SOURCE_SPECIAL = ("<unk>", "<blank>")
"""The special tokens of sources, which have neither a begin nor an end."""
NEW_OPTIONS = (
    "model_task",
    "hidden_size",
    "position_encoding_type",
    "pos_ffn_activation_fn",
    "layer_norm",
    "norm_eps",
    "data",
)
"""Options that version 1 does not have."""
FORMS = ("fields", "nested fields", "vocabularies")
"""Forms of the entry ``vocab``, the latest first."""


def write_old_checkpoint(
    folder: Path,
    source: Sequence[str],
    target: Sequence[str],
    form: str = FORMS[0],
    is_zipped: bool = True,
    seed: int = 0,
    num_features: int = 0,
) -> Path:
    """Write ``model.pt`` with random weights into a folder and return the folder.

    ``form`` is one of `FORMS`, or "cycle": an object that contains itself. ``num_features`` is the
    number of features of source tokens.
    """
    folder.mkdir(parents=True)
    tensors = random_tensors(OPTIONS, len(source), len(target), True, seed)
    options = {name: value for name, value in OPTIONS.items() if name not in NEW_OPTIONS}
    options |= {"rnn_size": -1, "enc_rnn_size": WIDTH, "dec_rnn_size": WIDTH}
    options |= {"self_attn_type": "scaled-dot"}
    with _packages() as packages:
        content = {
            "model": {n: t for n, t in tensors.items() if not n.startswith("generator")},
            "generator": {f"0.{kind}": tensors[f"generator.{kind}"] for kind in ("weight", "bias")},
            "vocab": packages.vocabularies(form, source, target, num_features),
            "opt": argparse.Namespace(**options),
            "optim": {"training_step": 5},
        }
        torch.save(content, folder / "model.pt", _use_new_zipfile_serialization=is_zipped)
    return folder


class _Packages:
    """The classes and functions that pickles name."""

    def __init__(self) -> None:
        self.modules: dict[str, ModuleType] = {}
        self._vocab = self._add("torchtext.vocab", _empty_class("Vocab"))
        self._field = self._add("torchtext.data.field", _empty_class("Field"))
        self._text_field = self._add("onmt.inputters.text_dataset", _empty_class("TextMultiField"))
        self._tokenize = self._add("onmt.inputters.text_dataset", _function("_feature_tokenize"))
        self._split = self._add("torchtext.data.utils", _function("_split_tokenizer"))

    def _add(self, module: str, thing: Any) -> Any:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            self.modules.setdefault(name, ModuleType(name))
        thing.__module__ = module
        setattr(self.modules[module], thing.__name__, thing)
        return thing

    def vocabularies(
        self, form: str, source: Sequence[str], target: Sequence[str], num_features: int
    ) -> Any:
        """The entry ``vocab``."""
        sides = {"src": self._new_vocab(source), "tgt": self._new_vocab(target)}
        if form == "vocabularies":
            return list(sides.items())
        if form == "cycle":
            vars(sides["src"]).update(vocab=sides["src"])
            return sides
        indices = self._new(self._field, use_vocab=False, tokenize=self._split, dtype=torch.int64)
        if form == "nested fields":
            nested = {side: [(side, self._new_field(v))] for side, v in sides.items()}
            return nested | {"indices": [("indices", indices)]}
        fields: dict[str, Any] = {"indices": indices}
        for side, vocab in sides.items():
            inner = [(side, self._new_field(vocab))]
            if side == "src":
                inner += [(f"src_feat_{i}", self._new_field(vocab)) for i in range(num_features)]
            fields[side] = self._new(self._text_field, preprocessing=None, fields=inner)
        return fields

    def _new(self, class_: type, **state: Any) -> Any:
        made = class_()
        vars(made).update(state)
        return made

    def _new_vocab(self, tokens: Sequence[str]) -> Any:
        stoi = {token: token_id for token_id, token in enumerate(tokens)}
        return self._new(self._vocab, freqs=Counter(tokens), itos=list(tokens), stoi=stoi)

    def _new_field(self, vocab: Any) -> Any:
        tokenize = partial(self._tokenize, layer=0, feat_delim=None, truncate=None)
        return self._new(self._field, sequential=True, tokenize=tokenize, vocab=vocab)


def _empty_class(name: str) -> type:
    return type(name, (), {})


def _function(name: str) -> Any:
    def found() -> None:
        raise AssertionError("nothing from a file is called")

    found.__name__ = found.__qualname__ = name
    return found


@contextmanager
def _packages() -> Iterator[_Packages]:
    """Modules of the packages, which only writing needs."""
    packages, before = _Packages(), dict(sys.modules)
    sys.modules.update(packages.modules)
    try:
        yield packages
    finally:
        for name in packages.modules:
            if name in before:
                sys.modules[name] = before[name]
            else:
                del sys.modules[name]
