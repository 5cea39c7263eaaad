"""Converts a checkpoint of OpenNMT-py to a CTranslate2 folder, to compare with ``ctranslate2``."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from attendant_export.importers.opennmt_py_file import GENERATOR
from attendant_export.verify.ctranslate2_original import (
    CTranslate2Translator,
    FolderTokens,
    is_installed,
)
from attendant_export.verify.original import OriginalError


def converted_translator(
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    tokens: FolderTokens,
    start: str,
    norm_epsilon: float,
) -> CTranslate2Translator:
    """The model in CTranslate2, converted by its own converter; raises OriginalError.

    The converter knows only one name of ``self_attn_type``, which chooses a kernel, and writes no
    epsilon of norms. The first is replaced before it, the second added after it.
    """
    if any(name.endswith(".w_3.weight") for name in tensors):
        raise OriginalError(
            "the converter of ctranslate2 leaves out the gates of feed-forward networks "
            f"(pos_ffn_activation_fn {options.get('pos_ffn_activation_fn')})"
        )
    if not is_installed():
        raise OriginalError("a comparison with the original needs ctranslate2: install it with pip")
    content = file_content(tensors, {**options, "self_attn_type": "scaled-dot"}, tokens, start)
    with TemporaryDirectory() as folder:
        converted = _converted(content, Path(folder))
        config = converted / "config.json"
        fields = json.loads(config.read_text(encoding="utf-8"))
        fields["layer_norm_epsilon"] = norm_epsilon
        config.write_text(json.dumps(fields), encoding="utf-8")
        return CTranslate2Translator(converted, tokens)


def file_content(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], tokens: FolderTokens, start: str
) -> dict[str, Any]:
    """The content of one file of OpenNMT-py with all tensors."""
    model = {name: t for name, t in tensors.items() if not name.startswith(GENERATOR)}
    generator = {n.removeprefix(GENERATOR): t for n, t in tensors.items() if n not in model}
    return {
        "model": model,
        "generator": generator,
        "vocab": {"src": list(tokens.source), "tgt": list(tokens.target)},
        "opt": argparse.Namespace(**{**options, "decoder_start_token": start}),
    }


def _converted(content: Mapping[str, Any], folder: Path) -> Path:
    """The folder in ``folder`` that the converter writes; raises OriginalError."""
    from ctranslate2.converters import OpenNMTPyConverter

    whole, converted = folder / "model.pt", folder / "converted"
    torch.save(content, whole)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            OpenNMTPyConverter(str(whole)).convert(str(converted))
    except (KeyError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise OriginalError(f"ctranslate2 cannot convert the checkpoint: {reason}") from error
    return converted
