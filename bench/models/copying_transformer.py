"""A Transformer base, built by hand, that copies its source; exported as a bundle.

    python -m bench.models.copying_transformer --data-dir DATA_DIR

Random weights would decode without end, and engines differ in what they can be told about lengths.
This model ends where its source ends, in every engine, so that output lengths follow real text;
how many outputs equal their sources is the quality of a precision. All arithmetic has full size.

How it copies: the channels of the 32 fastest sines and cosines hold positions only, as token
embeddings are zero there. In the last decoder layer, every head of cross-attention compares these
channels of the target position with those of the source positions, finds its own position, and adds
the source token's channels to the stream, where they outweigh everything else. All other weights
are small and random.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, trainers

from bench.texts import add_data_dir, paragraph_sentences, sample_texts, tatoeba_sentences

BUNDLES = Path("build/bench/bundles")
RUN = Path("build/bench/runs/copy-base")
NAME, VERSION = "copy-base", "1"
VOCAB_SIZE = 32_000
D_MODEL, NUM_HEADS, D_FF, NUM_LAYERS = 512, 8, 2048, 6
HEAD_DIM = D_MODEL // NUM_HEADS
NUM_RATES = HEAD_DIM // 2
MAX_POSITION = 64
"""Positions around which the stream is centred; the copy works far beyond."""
STD = 0.02
QUIET = 0.1
"""What the outputs of random sublayers are scaled by, so that they disturb nothing."""
SHARPNESS = 6.0
COPY_GAIN = 4.0
NUM_VERIFIED_TEXTS = 12
"""The exporter decodes them without caches as well, which takes long for a model of this size."""
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<unk>"]

Weights = dict[str, NDArray[np.float32]]
Floats = NDArray[np.float32]


def positions(num_positions: int) -> Floats:
    """Our sinusoidal positions (num_positions, d_model): sines in the first half, then cosines."""
    rates = np.exp(np.arange(0, D_MODEL, 2) * (-math.log(10_000.0) / D_MODEL))
    angles = np.arange(num_positions)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def position_channels() -> NDArray[np.bool_]:
    """Which channels hold positions only."""
    fast = np.arange(D_MODEL // 2) < NUM_RATES
    return np.concatenate([fast, fast])


def embeddings(rng: np.random.Generator, vocab_size: int) -> Floats:
    """Token embeddings (vocab_size, d_model), zero where positions are."""
    free = ~position_channels()
    tokens = rng.standard_normal((vocab_size, free.sum()), dtype=np.float32)
    tokens -= tokens.mean(axis=1, keepdims=True)
    # All of one length, so that layer norm scales all positions alike.
    tokens *= math.sqrt(D_MODEL) / np.linalg.norm(tokens, axis=1, keepdims=True)
    # Slow cosines are nearly 1 everywhere. Without them layer norm has next to no mean to subtract,
    # which would shift the position channels.
    tokens -= positions(MAX_POSITION).mean(axis=0)[free]
    scaled = np.zeros((vocab_size, D_MODEL), np.float32)
    scaled[:, free] = tokens
    return scaled / np.float32(math.sqrt(D_MODEL))  # the model multiplies by it


class RandomLayers:
    """Small random weights under the names of the exporter's checkpoints."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.weights: Weights = {}

    def linear(self, name: str, num_in: int, num_out: int, std: float = STD) -> None:
        """Weight (num_out, num_in) and bias."""
        random = self._rng.standard_normal((num_out, num_in), dtype=np.float32)
        self.weights[f"{name}.weight"] = random * np.float32(std)
        self.weights[f"{name}.bias"] = np.zeros(num_out, np.float32)

    def norm(self, name: str) -> None:
        """Layer norm that only normalizes."""
        self.weights[f"{name}.weight"] = np.ones(D_MODEL, np.float32)
        self.weights[f"{name}.bias"] = np.zeros(D_MODEL, np.float32)

    def attention(self, name: str) -> None:
        """Attention and the layer norm before it."""
        self.linear(f"{name}.query_key_value", D_MODEL, 3 * D_MODEL)
        self.linear(f"{name}.output", D_MODEL, D_MODEL, STD * QUIET)
        self.norm(f"{name}_residual.norm")

    def layer(self, name: str, cross_attention: bool) -> None:
        """One layer of the encoder or the decoder."""
        self.attention(f"{name}.self_attention")
        if cross_attention:
            self.attention(f"{name}.cross_attention")
        self.linear(f"{name}.feed_forward.0", D_MODEL, D_FF)
        self.linear(f"{name}.feed_forward.2", D_FF, D_MODEL, STD * QUIET)
        self.norm(f"{name}.feed_forward_residual.norm")


def copying_weights(vocab_size: int, seed: int = 1) -> Weights:
    """All weights of the model by their names in a checkpoint."""
    rng = np.random.default_rng(seed)
    layers = RandomLayers(rng)
    for i in range(NUM_LAYERS):
        layers.layer(f"encoder.{i}", cross_attention=False)
        layers.layer(f"decoder.{i}", cross_attention=True)
    layers.norm("encoder_norm")
    layers.norm("decoder_norm")
    _copy_in(layers.weights, f"decoder.{NUM_LAYERS - 1}.cross_attention")
    return {"embedding.weight": embeddings(rng, vocab_size), **layers.weights}


def _copy_in(weights: Weights, name: str) -> None:
    """Make a cross-attention find its own position and copy the tokens' channels from there."""
    own = position_channels()
    find = np.zeros((D_MODEL, D_MODEL), np.float32)
    for head in range(NUM_HEADS):
        rows = np.arange(HEAD_DIM) + head * HEAD_DIM
        find[rows, np.flatnonzero(own)] = SHARPNESS
    take = np.eye(D_MODEL, dtype=np.float32)
    weights[f"{name}.query_key_value.weight"] = np.concatenate([find, find, take])
    weights[f"{name}.output.weight"] = np.diag(~own * np.float32(COPY_GAIN))


def train_tokenizer(bundle: Path, texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """A larger vocabulary for the pipeline of an exported bundle's tokenizer."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.model = models.BPE(unk_token=SPECIAL_TOKENS[-1])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_run(run_dir: Path, tokenizer: Tokenizer) -> None:
    """A run folder as a training leaves it."""
    (run_dir / "best").mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(run_dir / "tokenizer.json"))
    vocab_size = tokenizer.get_vocab_size()
    config = {
        "kind": "translation",
        "vocab_size": vocab_size,
        "d_model": D_MODEL,
        "num_heads": NUM_HEADS,
        "d_ff": D_FF,
        "num_encoder_layers": NUM_LAYERS,
        "num_decoder_layers": NUM_LAYERS,
    }
    (run_dir / "config.json").write_text(json.dumps(config, indent=1))
    save_file(copying_weights(vocab_size), run_dir / "best" / "weights.safetensors")
    card = {
        "description": "Copies its source: a Transformer base made by hand for measurements.",
        "license": "Apache-2.0",
        "languages": ["en", "en"],
        "data": [],
        "intended_use": "Measuring speed.",
    }
    (run_dir / "card.json").write_text(json.dumps(card, indent=1))


def export(run_dir: Path, texts: Iterable[str]) -> Path:
    """Export the run with ``attendant-export``, verified on copies of these texts."""
    pairs = run_dir / "valid.tsv"
    pairs.write_text("".join(f"{text}\t{text}\n" for text in texts), encoding="utf-8")
    command = [sys.executable, "-m", "attendant_export", "export", f"--run-dir={run_dir}"]
    command += [f"--bundles-dir={BUNDLES}", f"--name={NAME}", f"--model-version={VERSION}"]
    command += ["--precisions=int8,fp32", f"--valid={pairs.resolve()}"]
    command += [f"--data-card={run_dir / 'card.json'}"]
    subprocess.run(command, check=True)
    return BUNDLES / NAME / VERSION


def main() -> None:
    """Build the bundle, unless it is there already."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data_dir(parser)
    parser.add_argument("--tokenizer-of", type=Path, default=Path("bundles/en-de/1"))
    arguments = parser.parse_args()
    print(copying_bundle(arguments.data_dir, arguments.tokenizer_of))


def copying_bundle(data_dir: Path, tokenizer_of: Path = Path("bundles/en-de/1")) -> Path:
    """The bundle's folder; it is built if it is not there."""
    target = BUNDLES / NAME / VERSION
    if not target.exists():
        texts = [*tatoeba_sentences(data_dir), *paragraph_sentences(data_dir)]
        write_run(RUN, train_tokenizer(tokenizer_of, texts))
        export(RUN, sample_texts(data_dir, "short", NUM_VERIFIED_TEXTS, seed=5))
    return target


if __name__ == "__main__":
    main()
