"""A plain reading of Marian's Transformers in NumPy, to compare imported models with.

It reads the tensors by Marian's names and shares no code with the importer, the PyTorch model and
the graphs. Written for obvious correctness, not for speed: one sentence at a time, uncached.
Weights and activations are in float32; Marian's int8 engines also round activations.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
EPSILON = 1e-9


class MarianReading:
    """A model. Token ids are Marian's: decoding starts without any token."""

    def __init__(self, tensors: Mapping[str, FloatArray], config: Mapping[str, Any]) -> None:
        """``config`` is the configuration in the file of the tensors."""
        self._tensors, self._config = tensors, config
        self._is_pre_norm = "n" in (config.get("transformer-preprocess") or "")
        self._is_recurrent = config.get("transformer-decoder-autoreg") == "rnn"

    def encode(self, source: Sequence[int]) -> FloatArray:
        """The encoder's output (source, width)."""
        x = self._embed(self._table("encoder")[np.asarray(source)])
        for layer in range(1, self._config["enc-depth"] + 1):
            name = f"encoder_l{layer}"
            y = self._before(x, f"{name}_self_Wo")
            x = self._after(x, self._attend(y, y, f"{name}_self"), f"{name}_self_Wo")
            x = self._feed_forward(x, f"{name}_ffn")
        return self._top(x, "encoder")

    def keys_values(self, memory: FloatArray) -> list[FloatArray]:
        """The cross-attention keys and values of each decoder layer, each (source, width)."""
        names = (f"decoder_l{layer}_context" for layer in range(1, self._config["dec-depth"] + 1))
        return [self._affine(memory, name, part) for name in names for part in "kv"]

    def next_log_probabilities(
        self, memory: FloatArray, prefixes: Sequence[Sequence[int]]
    ) -> FloatArray:
        """Those of the token after each of the prefixes: (prefixes, vocabulary).

        ``memory`` is the encoder's output.
        """
        states = [self._decode(memory, prefix)[-1:] for prefix in prefixes]
        return self._log_softmax(np.concatenate(states))

    def score(self, memory: FloatArray, target: Sequence[int]) -> list[float]:
        """The log-probability of every token of a target."""
        found = self._log_softmax(self._decode(memory, target[:-1]))
        return [float(row[i]) for row, i in zip(found, target, strict=True)]

    def _decode(self, memory: FloatArray, target: Sequence[int]) -> FloatArray:
        """States (1 + target, width) that predict the token after each prefix of ``target``."""
        table = self._table("decoder")
        start = np.zeros((1, table.shape[1]), np.float32)
        x = self._embed(np.concatenate([start, table[np.asarray(target, np.int64)]]))
        for layer in range(1, self._config["dec-depth"] + 1):
            name = f"decoder_l{layer}"
            x = self._mix(x, name)
            y = self._before(x, f"{name}_context_Wo")
            y = self._attend(y, memory, f"{name}_context")
            x = self._after(x, y, f"{name}_context_Wo")
            x = self._feed_forward(x, f"{name}_ffn")
        return self._top(x, "decoder")

    def _log_softmax(self, x: FloatArray) -> FloatArray:
        logits = x @ self._projection() + self._tensors["decoder_ff_logit_out_b"]
        logits = logits - logits.max(-1, keepdims=True)
        return _floats(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))

    def _table(self, side: str) -> FloatArray:
        return self._tensors["Wemb" if "Wemb" in self._tensors else f"{side}_Wemb"]

    def _projection(self) -> FloatArray:
        """The matrix (width, vocabulary) of the output layer."""
        name = "decoder_ff_logit_out_W"
        if name in self._tensors:
            return self._tensors[name]
        if f"{name}t" in self._tensors:
            return _floats(self._tensors[f"{name}t"].T)
        return _floats(self._table("decoder").T)

    def _embed(self, vectors: FloatArray) -> FloatArray:
        """Vectors of tokens (length, width), scaled, with the sinusoids of their positions."""
        length, width = vectors.shape
        half = width // 2
        rates = 10_000.0 ** (-np.arange(half) / (half - 1))
        angles = np.arange(length)[:, None] * rates
        positions = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        return _floats(vectors * sqrt(width) + positions)

    def _before(self, x: FloatArray, name: str) -> FloatArray:
        """The input of the sublayer whose norm is ``name``."""
        return self._norm(x, name, "_pre") if self._is_pre_norm else x

    def _after(self, x: FloatArray, y: FloatArray, name: str) -> FloatArray:
        """The sum of a sublayer's input and output, normalized after it."""
        return x + y if self._is_pre_norm else self._norm(x + y, name)

    def _top(self, x: FloatArray, side: str) -> FloatArray:
        has_norm = "n" in (self._config.get("transformer-postprocess-top") or "")
        return self._norm(x, f"{side}_top") if has_norm else x

    def _norm(self, x: FloatArray, name: str, suffix: str = "") -> FloatArray:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        normalized = (x - mean) / np.sqrt(variance + EPSILON)
        scale, bias = (self._tensors[f"{name}_ln_{each}{suffix}"] for each in ("scale", "bias"))
        return _floats(normalized * scale + bias)

    def _affine(self, x: FloatArray, name: str, part: str) -> FloatArray:
        return x @ self._tensors[f"{name}_W{part}"] + self._tensors[f"{name}_b{part}"]

    def _mix(self, x: FloatArray, layer: str) -> FloatArray:
        """The first sublayer of the decoder: the recurrence, or attention to earlier tokens."""
        if self._is_recurrent:
            return self._after(x, self._recur(x, f"{layer}_rnn"), f"{layer}_rnn_ffn")
        y = self._before(x, f"{layer}_self_Wo")
        y = self._attend(y, y, f"{layer}_self", is_causal=True)
        return self._after(x, y, f"{layer}_self_Wo")

    def _recur(self, x: FloatArray, name: str) -> FloatArray:
        """The simpler simple recurrent unit: each token replaces a part of the state."""
        forget = 1 / (1 + np.exp(-self._affine(x, name, "f")))
        new = x @ self._tensors[f"{name}_W"]
        state, states = np.zeros(x.shape[1], np.float32), []
        for row in range(len(x)):
            state = forget[row] * state + (1 - forget[row]) * new[row]
            states.append(np.maximum(state, 0))
        return np.stack(states)

    def _attend(
        self, x: FloatArray, memory: FloatArray, name: str, is_causal: bool = False
    ) -> FloatArray:
        heads = self._config["transformer-heads"]
        queries = np.split(self._affine(x, name, "q"), heads, axis=1)
        keys = np.split(self._affine(memory, name, "k"), heads, axis=1)
        values = np.split(self._affine(memory, name, "v"), heads, axis=1)
        results = []
        for query, key, value in zip(queries, keys, values, strict=True):
            scores = query @ key.T / sqrt(query.shape[1])
            if is_causal:
                scores[np.triu_indices(len(x), 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            results.append(weights / weights.sum(-1, keepdims=True) @ value)
        return self._affine(np.concatenate(results, axis=1), name, "o")

    def _feed_forward(self, x: FloatArray, name: str) -> FloatArray:
        hidden = self._affine(self._before(x, f"{name}_ffn"), name, "1")
        if self._config.get("transformer-ffn-activation") == "relu":
            hidden = np.maximum(hidden, 0)
        else:  # swish
            hidden = hidden / (1 + np.exp(-hidden))
        return self._after(x, self._affine(hidden, name, "2"), f"{name}_ffn")


def _floats(values: NDArray[Any]) -> FloatArray:
    return values.astype(np.float32, copy=False)
