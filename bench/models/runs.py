"""Models for measurements: random weights, run folders and exported bundles.

Run folders look like those of a finished training, so that ``attendant-export`` can export them.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import EncoderTokens, TranslationTokens
from attendant_export.runs.config import BERT, TRANSLATION, RunConfig, write_config
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

Weights = dict[str, NDArray[np.float32]]
STD = 0.02


def random_weights(architecture: Architecture, seed: int = 1) -> Weights:
    """Random weights by parameter name, initialized like BERT (normal, deviation 0.02)."""
    with torch.device("meta"):
        model_of = EncoderDecoder if architecture.HasField("decoder") else Encoder
        model = model_of(architecture)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    rng = np.random.default_rng(seed)
    return {name: _initial(rng, name, shape) for name, shape in sorted(shapes.items())}


def _initial(rng: np.random.Generator, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:  # of a layer norm
        return np.ones(shape, np.float32)
    return rng.normal(0, STD, shape).astype(np.float32)


def write_run(
    run_dir: Path, architecture: Architecture, weights: Weights, tokenizer: Tokenizer
) -> None:
    """Write a run folder."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if architecture.HasField("decoder"):
        config = RunConfig(TRANSLATION, architecture, TranslationTokens(), dropout=0.0)
    else:
        config = RunConfig(BERT, architecture, EncoderTokens(), dropout=0.0)
        max_tokens = architecture.source_embeddings.positions.num_positions
        write_json(run_dir / "run.json", {"recipe": "random weights", "max_tokens": max_tokens})
    write_config(run_dir, config)
    tokenizer.save(str(run_dir / "tokenizer.json"))
    save_weights(run_dir / "best/weights.safetensors", weights)


def export_run(
    run_dir: Path, bundle: Path, precisions: str, languages: Sequence[str], texts: Sequence[str]
) -> None:
    """Export a run as the bundle ``<name>/<version>``, verified on pairs of equal texts."""
    card = {
        "description": "Made for measuring speed.",
        "license": "Apache-2.0",
        "languages": languages,
        "data": [],
        "intended_use": "Measuring speed.",
    }
    write_json(run_dir / "card.json", card)
    pairs = run_dir / "valid.tsv"
    pairs.write_text("".join(f"{text}\t{text}\n" for text in texts), encoding="utf-8")
    command = [sys.executable, "-m", "attendant_export", "export", f"--run-dir={run_dir}"]
    command += [f"--bundles-dir={bundle.parent.parent}", f"--name={bundle.parent.name}"]
    command += [f"--model-version={bundle.name}", f"--precisions={precisions}"]
    command += [f"--valid={pairs.resolve()}", f"--data-card={run_dir / 'card.json'}"]
    subprocess.run(command, check=True, stdout=sys.stderr)


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a JSON file and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_weights(path: Path, weights: Weights, **metadata: str) -> None:
    """Write weights as safetensors and create the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    save_file(contiguous, path, metadata or None)
