"""The original implementation's network with the weights of a GGUF file, to compare a bundle with.

The implementation reads no such files without further packages, so it gets the tensors.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from attendant_export.importers import gpt2, llama
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.decoder_shaped import decoder_weights
from attendant_export.importers.gguf import (
    GgufWeights,
    configuration,
    gguf_weights,
    read_gguf_network,
)
from attendant_export.importers.gguf_file import GgufFile
from attendant_export.verify.original_language_model import LoadedLanguageModel


def gguf_original(path: Path, eos_id: int, pad_id: int) -> LoadedLanguageModel:
    """The network of a file; the special tokens are those of the bundle.

    Raises CheckpointError for a damaged file, and OriginalError.
    """
    file = GgufFile(path)
    family = str(file.fields.get("general.architecture"))
    tensors = dict(_tensors(file, family))
    return LoadedLanguageModel(family, configuration(file), tensors, eos_id, pad_id)


def _tensors(file: GgufFile, family: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file by the names of the original."""
    network, _ = read_gguf_network(file)
    weights, stored = GgufWeights(file, network), gguf_weights(network).names
    if family == "gpt2":
        names: dict[str, str | Sequence[str]] = {**gpt2.WEIGHTS}
        prefix = "transformer."
    else:
        names, prefix = {**decoder_weights(network), **llama.NORMS}, "model."
    names["head.projection"] = "lm_head"
    original = {each: ours for ours, theirs in stored.items() for each in _listed(theirs)}
    for name in file.shapes:
        module, kind = name.rsplit(".", 1)
        parts = module.split(".")
        layer = parts[1] if parts[0] == "blk" else ""
        pattern = module.replace(f"blk.{layer}.", "blk.{layer}.") if layer else module
        if pattern not in original:
            raise CheckpointError(f"{file.path}: {name} is not expected")
        ours = original[pattern]
        theirs = dict(zip(_listed(stored[ours]), _listed(names[ours]), strict=True))[pattern]
        found = f"{theirs.replace('{layer}', layer)}.{kind}"
        tensor = weights.read(name)
        is_linear = family == "gpt2" and kind == "weight" and tensor.ndim == 2 and layer
        yield (found if theirs == "lm_head" else prefix + found), tensor.T if is_linear else tensor


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
