"""A Transformer base with constructed weights that copies its source, exported as a bundle.

With random weights, decoding would not end, and engines differ in how they limit lengths. This
model ends where its source ends in every engine, so output lengths follow real text. The share of
outputs that equal their sources measures the quality of a precision. All computations have full
size.

How it copies: the channels of the 32 fastest sines and cosines hold only positions, because token
embeddings are zero there. In the last decoder layer, every head of cross-attention compares these
channels of the target position with those of all source positions and attends to its own position.
It adds the source token's channels to the residual stream, where they outweigh everything else. All
other weights are small and random.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from attendant.v1.architecture_pb2 import Architecture
from attendant_export.models.embeddings import sinusoids
from attendant_export.models.shapes import transformer
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, trainers

from bench.models.runs import Weights, export_run, random_weights, write_run
from bench.texts import paragraph_sentences, sample_texts, tatoeba_sentences

TOKENIZER_OF = Path("bundles/en-de/3")
VOCAB_SIZES = {"copy-base": 32_000, "copy-opus": 58_101}
"""By model. OPUS-MT has the sizes of a Transformer base with a larger vocabulary."""
D_MODEL, NUM_HEADS, D_FF, NUM_LAYERS = 512, 8, 2048, 6
HEAD_DIM = D_MODEL // NUM_HEADS
NUM_RATES = HEAD_DIM // 2
MAX_POSITION = 64
"""Positions used to centre the residual stream. Copying works far beyond."""
QUIET = 0.1
"""Scale of the outputs of random sublayers, small enough not to disturb the copy."""
QUIET_OUTPUTS = ("attention.output.weight", "feed_forward.2.weight")
SHARPNESS = 6.0
COPY_GAIN = 4.0
NUM_VERIFIED_TEXTS = 12
"""Kept low because the exporter also decodes without caches, which is slow at this model size."""
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<unk>"]


def position_channels() -> NDArray[np.bool_]:
    """A mask of the channels that hold only positions."""
    fast = np.arange(D_MODEL // 2) < NUM_RATES
    return np.concatenate([fast, fast])


def embeddings(vocab_size: int) -> NDArray[np.float32]:
    """Token embeddings (vocab_size, d_model), zero in the channels of positions."""
    free = ~position_channels()
    rng = np.random.default_rng(1)
    tokens = rng.standard_normal((vocab_size, free.sum()), dtype=np.float32)
    tokens -= tokens.mean(axis=1, keepdims=True)
    # Embeddings of equal length make layer norm scale all positions alike.
    tokens *= math.sqrt(D_MODEL) / np.linalg.norm(tokens, axis=1, keepdims=True)
    # Slow cosines are close to 1 everywhere. Subtract their mean, or layer norm would shift the
    # position channels.
    part = copying_architecture(vocab_size).source_embeddings.positions
    tokens -= sinusoids(part, MAX_POSITION, D_MODEL).numpy().mean(axis=0)[free]
    scaled = np.zeros((vocab_size, D_MODEL), np.float32)
    scaled[:, free] = tokens
    return scaled / np.float32(math.sqrt(D_MODEL))  # the model multiplies by it


def copying_architecture(vocab_size: int) -> Architecture:
    """A pre-norm Transformer base."""
    return transformer(vocab_size, D_MODEL, NUM_HEADS, D_FF, NUM_LAYERS, NUM_LAYERS)


def copying_weights(vocab_size: int) -> Weights:
    """All weights of the model by checkpoint name."""
    weights = random_weights(copying_architecture(vocab_size))
    for name in weights:
        if name.endswith(QUIET_OUTPUTS):
            weights[name] *= np.float32(QUIET)
    _copy_in(weights, f"decoder.{NUM_LAYERS - 1}.cross_attention")
    weights["embedding.weight"] = embeddings(vocab_size)
    return weights


def _copy_in(weights: Weights, name: str) -> None:
    """Set the weights of a cross-attention so that it copies the token at its own position."""
    own = position_channels()
    find = np.zeros((D_MODEL, D_MODEL), np.float32)
    for head in range(NUM_HEADS):
        rows = np.arange(HEAD_DIM) + head * HEAD_DIM
        find[rows, np.flatnonzero(own)] = SHARPNESS
    take = np.eye(D_MODEL, dtype=np.float32)
    weights[f"{name}.query_key_value.weight"] = np.concatenate([find, find, take])
    weights[f"{name}.output.weight"] = np.diag(~own * np.float32(COPY_GAIN))


def train_tokenizer(bundle: Path, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a larger vocabulary for the tokenizer pipeline of an exported bundle."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.model = models.BPE(unk_token=SPECIAL_TOKENS[-1])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_copying_run(run_dir: Path, tokenizer: Tokenizer) -> None:
    """Write the model as a run folder with the vocabulary size of the tokenizer."""
    vocab_size = tokenizer.get_vocab_size()
    write_run(run_dir, copying_architecture(vocab_size), copying_weights(vocab_size), tokenizer)


def build(bundle: Path, data_dir: Path) -> None:
    """Export the model with a tokenizer trained on the benches' texts."""
    texts = [*tatoeba_sentences(data_dir), *paragraph_sentences(data_dir)]
    name = bundle.parent.name
    run_dir = Path("build/bench/runs") / name
    write_copying_run(run_dir, train_tokenizer(TOKENIZER_OF, texts, VOCAB_SIZES[name]))
    verified = sample_texts(data_dir, "short", NUM_VERIFIED_TEXTS, seed=5)
    export_run(run_dir, bundle, "int8,fp32", ["en", "en"], verified)
