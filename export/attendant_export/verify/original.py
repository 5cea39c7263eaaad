"""The original implementation, ``transformers``, if installed; compares imported encoders with it.

Nothing from a checkpoint is executed: the package runs its own code of the family only.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from attendant.v1.bundle_pb2 import OriginalParity
from tokenizers import Tokenizer
from torch import nn

from attendant_export.models.text_vectors import Pooling, pool
from attendant_export.verify.embedding import (
    MIN_FP32_COSINE,
    EmbeddingGraphs,
    FloatArray,
    agreement,
    cosines,
)
from attendant_export.verify.graph_sessions import ParityError

logger = logging.getLogger(__name__)

IMPLEMENTATION = "transformers"
FAMILIES_WITH_DECODERS = "mt5", "t5"
"""Families whose models are an encoder and a decoder, unless the encoder alone is asked for."""
MIN_SAME_MODEL_COSINE = 0.9
"""Lower bound of the mean cosine of vectors in a bundle without fp32, to notice another model."""


@contextmanager
def _without_bars(logging: Any) -> Iterator[None]:
    """No progress bars of the implementation. Its switch also turns off those of the hub."""
    has_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if has_bars:
            logging.enable_progress_bar()


class OriginalError(ValueError):
    """The original implementation is not installed, or cannot load a checkpoint."""


def is_installed() -> bool:
    """Whether the original implementation is installed."""
    return find_spec(IMPLEMENTATION) is not None


class Implementation(Protocol):
    """Another implementation of a model with its tokenizer."""

    implementation: str
    """Its name."""
    version: str

    def token_ids(self, text: str) -> list[int] | None:
        """The token ids of a text, special tokens included; None if it has no tokenizer."""


class Original:
    """The tokenizer and the model of a checkpoint in the original implementation."""

    implementation = IMPLEMENTATION

    def __init__(self, folder: Path, model_class: str) -> None:
        """``model_class`` is a class of the implementation; raises OriginalError."""
        if not is_installed():
            raise OriginalError(
                f"a comparison with the original needs {IMPLEMENTATION}: install "
                "attendant-export[verify]"
            )
        if not folder.is_dir():
            raise OriginalError(f"{folder}: no such folder")
        import transformers

        self.version: str = transformers.__version__
        # A head that the encoder does not need is no news.
        transformers.utils.logging.set_verbosity_error()
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            with _without_bars(transformers.utils.logging):
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **options)
                # In the type of the weights, fp16 would also round the positions that it computes.
                model, info = getattr(transformers, model_class).from_pretrained(
                    folder, output_loading_info=True, dtype=torch.float32, **options
                )
        except Exception as error:  # The library raises no narrower class.
            raise OriginalError(
                f"{IMPLEMENTATION} {self.version} cannot load {folder}: {error}"
            ) from error
        self._model: Any = model.eval()
        self._missing = sorted(info["missing_keys"])
        """The weights that the checkpoint lacks, in the names of the original: random ones."""

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text, special tokens included."""
        return list(self._tokenizer(text)["input_ids"])

    def change_tokenizer(self, change: Callable[[Tokenizer], None]) -> None:
        """Apply to the tokenizer what another package changes in it."""
        change(self._tokenizer.backend_tokenizer)

    @contextmanager
    def running(self, num_tokens: int) -> Iterator[None]:
        """Run the model without gradients, on ``num_tokens`` tokens.

        Raises OriginalError for token ids or a length that the model does not have.
        """
        try:
            with torch.inference_mode():
                yield
        except (IndexError, RuntimeError) as error:
            raise OriginalError(
                f"{IMPLEMENTATION} {self.version} cannot run {num_tokens} tokens: {error}"
            ) from error


class OriginalEncoder(Original):
    """An embedding model in the original implementation."""

    def __init__(self, folder: Path, family: str = "") -> None:
        """``family`` is the name in the manifest of the bundle. Raises OriginalError."""
        is_t5 = family in FAMILIES_WITH_DECODERS
        super().__init__(folder, "AutoModelForTextEncoding" if is_t5 else "AutoModel")

    def hidden_states(
        self, token_ids: Sequence[int], num_attended: int | None = None
    ) -> list[FloatArray]:
        """The embeddings and each layer's output, each (1, length, d_model).

        ``num_attended`` is the number of tokens that are attended to, by default all.
        Raises OriginalError.
        """
        num_tokens = len(token_ids)
        attended = num_tokens if num_attended is None else num_attended
        mask = torch.arange(num_tokens)[None] < attended
        inputs = {"input_ids": torch.tensor([list(token_ids)]), "attention_mask": mask.long()}
        with self.running(num_tokens):
            output = self._model(**inputs, output_hidden_states=True)
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        return [state.numpy() for state in states]


def compare_with_original(
    original: OriginalEncoder,
    texts: Mapping[str, Sequence[int]],
    graphs: Mapping[str, EmbeddingGraphs],
    pooling: Pooling,
    dense: nn.Module | None = None,
    num_prompt_tokens: int = 0,
) -> OriginalParity:
    """Compare graphs by precision with the original implementation on texts with token ids.

    Vectors are poolings of the hidden states without the first ``num_prompt_tokens``, after the
    dense layers.

    Raises ParityError if the hidden states of fp32 differ. Without fp32, vectors must be similar.
    Different token ids are counted: the tokenizer of the implementation does not always follow the
    checkpoint's ``tokenizer.json``.
    """
    parity = OriginalParity(
        implementation=IMPLEMENTATION,
        implementation_version=original.version,
        num_texts=len(texts),
        num_different_token_ids=count_other_token_ids(
            original, {text: (ids, original.token_ids(text)) for text, ids in texts.items()}
        ),
    )
    expected = [original.hidden_states(ids) for ids in texts.values()]
    vectors = np.concatenate(
        [_vectors(states[-1], pooling, dense, num_prompt_tokens) for states in expected]
    )
    for precision, opened in graphs.items():
        names = [f"{pooling}_pooled"]
        found = np.concatenate([opened.run([ids], names)[0] for ids in texts.values()])
        similar = _cosines("vectors", found, vectors)
        parity.vectors.add(precision=precision).embeddings.CopyFrom(
            agreement(similar, len(similar))
        )
    if (fp32 := graphs.get("fp32")) is None:
        check_vectors(parity)
        return parity
    pairs = [
        pair
        for ids, states in zip(texts.values(), expected, strict=True)
        for pair in _pairs(fp32.run([ids], fp32.hidden_names), states)
    ]
    _compare_states(pairs, parity)
    return parity


def count_other_token_ids(
    original: Implementation, texts: Mapping[str, tuple[Sequence[int], Sequence[int] | None]]
) -> int:
    """Number of texts whose token ids differ from the second ones, those of the original.

    None stands for unknown token ids.
    """
    different = [
        text
        for text, (ours, theirs) in texts.items()
        if theirs is not None and list(ours) != list(theirs)
    ]
    if different:
        logger.warning(
            "the tokenizer of %s %s gives other token ids for %d of %d texts, first for %r",
            *(original.implementation, original.version),
            *(len(different), len(texts), different[0]),
        )
    return len(different)


@torch.inference_mode()
def _vectors(
    hidden: FloatArray, pooling: Pooling, dense: nn.Module | None, num_prompt_tokens: int
) -> FloatArray:
    states = torch.from_numpy(hidden)
    is_real = torch.ones(states.shape[:2], dtype=torch.bool)
    pooled = pool(states, is_real, pooling, num_prompt_tokens)
    vectors: FloatArray = (pooled if dense is None else dense(pooled)).numpy()
    return vectors


def _cosines(name: str, ours: FloatArray, theirs: FloatArray) -> FloatArray:
    if ours.shape != theirs.shape:
        raise ParityError(f"{name} of {IMPLEMENTATION} are {theirs.shape}, not {ours.shape}")
    return cosines(ours, theirs)


def check_vectors(parity: OriginalParity) -> None:
    """Raise ParityError for vectors that differ by more than a precision explains."""
    for each in parity.vectors:
        if not (each.embeddings.mean_cosine >= MIN_SAME_MODEL_COSINE):
            raise ParityError(
                f"{each.precision} vectors have a mean cosine of only "
                f"{each.embeddings.mean_cosine:.4f} to those of {parity.implementation} "
                f"{parity.implementation_version}"
            )


def _pairs(
    ours: Sequence[FloatArray], theirs: Sequence[FloatArray]
) -> list[tuple[FloatArray, FloatArray]]:
    """The two hidden states of each layer."""
    if len(ours) != len(theirs):
        raise ParityError(f"{IMPLEMENTATION} has {len(theirs) - 1} layers, not {len(ours) - 1}")
    return list(zip(ours, theirs, strict=True))


def _compare_states(pairs: Sequence[tuple[FloatArray, FloatArray]], parity: OriginalParity) -> None:
    parity.min_cosine = float(np.min([_cosines("hidden states", *pair).min() for pair in pairs]))
    parity.max_difference = float(np.max([np.abs(ours - theirs).max() for ours, theirs in pairs]))
    if not (parity.min_cosine >= MIN_FP32_COSINE):  # also false for NaN
        raise ParityError(
            f"hidden states differ from {IMPLEMENTATION} {parity.implementation_version}: the "
            f"smallest cosine is {parity.min_cosine:.6f}"
        )
