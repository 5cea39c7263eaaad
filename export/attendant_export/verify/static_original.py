"""Compares static embeddings with the package that defines their folder, if it is installed.

Nothing from a checkpoint is executed: the packages run their own code only.
"""

import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from attendant.v1.bundle_pb2 import OriginalParity

from attendant_export.data.word_tokenizer import UNKNOWN, is_word, word_tokenizer
from attendant_export.verify.embedding import (
    MIN_FP32_COSINE,
    EmbeddingGraphs,
    FloatArray,
    agreement,
    cosines,
)
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.original import OriginalError, check_vectors, count_other_token_ids

MAX_DIFFERENCE = 1e-3
"""Bound of the difference of fp32 vectors from the original's, relative to the largest component.
Model2Vec rounds vectors to the type of its table, such as float16."""


class StaticOriginal(Protocol):
    """Static embeddings in the original implementation."""

    implementation: str
    version: str

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text, unknown tokens included."""

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """The vectors of texts: (texts, dimension), normalized or not."""


class Model2VecOriginal:
    """A folder in Model2Vec's own layout."""

    implementation = "model2vec"

    def __init__(self, folder: Path) -> None:
        """Raises OriginalError."""
        self.version, self._model = _load(
            self.implementation, folder, lambda library: library.StaticModel.from_pretrained(folder)
        )

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text, unknown tokens included."""
        return list(self._model.tokenizer.encode(text, add_special_tokens=False).ids)

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """The vectors of texts: (texts, dimension), not normalized."""
        # With a limit, it would also cut characters, by the median length of its tokens.
        vectors = self._model.encode(list(texts), normalize=False, max_length=None)
        return np.asarray(vectors, np.float32)


class SentenceTransformersOriginal:
    """A folder of sentence-transformers whose first module is static."""

    implementation = "sentence_transformers"

    def __init__(self, folder: Path) -> None:
        """Raises OriginalError."""
        self.version, self._model = _load(
            self.implementation,
            folder,
            lambda library: library.SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False
            ),
        )
        self._model.default_prompt_name = None

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text, unknown tokens included."""
        return list(self._model[0].tokenizer.encode(text, add_special_tokens=False).ids)

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """The vectors of texts: (texts, dimension), normalized if the folder says so."""
        return np.asarray(self._model.encode(list(texts), show_progress_bar=False), np.float32)


class GensimOriginal:
    """A file of word vectors, read by gensim, which has no tokenizer.

    Texts are split by the rules for the words that gensim has read; see `word_tokenizer`.
    """

    implementation = "gensim"

    def __init__(self, path: Path, num_words: int, is_binary: bool, has_header: bool) -> None:
        """The first ``num_words`` words of the file. Raises OriginalError."""

        def load(library: Any) -> Any:
            try:
                return library.models.KeyedVectors.load_word2vec_format(
                    str(path), binary=is_binary, no_header=not has_header
                )
            except Exception as error:
                traceback.clear_frames(error.__traceback__)  # They hold the open file.
                raise

        with warnings.catch_warnings():
            # gensim 4.4 opens a file without a header twice and closes it once.
            warnings.simplefilter("ignore", ResourceWarning)
            self.version, self._words = _load(self.implementation, path, load)
        words = [word for word in self._words.index_to_key if is_word(word)][:num_words]
        self._tokenizer = word_tokenizer({word: i for i, word in enumerate([UNKNOWN, *words])})

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text, unknown tokens included."""
        return list(self._tokenizer.encode(text).ids)

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """The vectors of texts: (texts, dimension), not normalized."""
        return np.stack([self._mean(self._tokenizer.encode(text).tokens) for text in texts])

    def _mean(self, words: Sequence[str]) -> FloatArray:
        known = [word for word in words if word != UNKNOWN]
        if not known:
            return np.zeros(self._words.vector_size, np.float32)
        return np.asarray(self._words.get_mean_vector(known, pre_normalize=False), np.float32)


def compare_static(
    original: StaticOriginal,
    texts: Mapping[str, Sequence[int]],
    graphs: Mapping[str, EmbeddingGraphs],
    is_normalized: bool,
) -> OriginalParity:
    """Compare graphs by precision with the original implementation on texts with token ids.

    ``is_normalized`` says whether the vectors of the original are. Raises ParityError if vectors
    of fp32 differ. Without fp32, vectors must be similar. Different token ids are counted.
    """
    parity = OriginalParity(
        implementation=original.implementation,
        implementation_version=original.version,
        num_texts=len(texts),
        num_different_token_ids=count_other_token_ids(
            original, {text: (ids, original.token_ids(text)) for text, ids in texts.items()}
        ),
    )
    expected = original.vectors(list(texts))
    for precision, opened in graphs.items():
        found = np.concatenate([opened.run([ids], ["mean_pooled"])[0] for ids in texts.values()])
        if is_normalized:
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            found /= np.where(lengths == 0, 1, lengths)
        if found.shape != expected.shape:
            raise ParityError(
                f"vectors of {original.implementation} are {expected.shape}, not {found.shape}"
            )
        similar = cosines(found, expected)
        parity.vectors.add(precision=precision).embeddings.CopyFrom(agreement(similar, len(texts)))
        if precision == "fp32":
            _check_fp32(original, similar, found, expected)
    check_vectors(parity)
    return parity


def _check_fp32(
    original: StaticOriginal, similar: FloatArray, found: FloatArray, expected: FloatArray
) -> None:
    difference = float(np.abs(found - expected).max() / np.abs(expected).max(initial=1e-9))
    if not (similar.min() >= MIN_FP32_COSINE and difference <= MAX_DIFFERENCE):  # also for NaN
        raise ParityError(
            f"vectors differ from {original.implementation} {original.version}: the smallest "
            f"cosine is {similar.min():.6f}, the largest relative difference {difference:.2g}"
        )


def _load(implementation: str, folder: Path, load: Callable[[Any], Any]) -> tuple[str, Any]:
    """The version of a library and the model that it loads; raises OriginalError."""
    if not is_installed(implementation):
        raise OriginalError(f"a comparison with the original needs {implementation}: install it")
    library = import_module(implementation)
    version = str(library.__version__)
    try:
        return version, load(library)
    except Exception as error:  # The library raises no narrower class.
        raise OriginalError(f"{implementation} {version} cannot load {folder}: {error}") from error


def is_installed(implementation: str) -> bool:
    """Whether an original implementation is installed."""
    return find_spec(implementation) is not None
