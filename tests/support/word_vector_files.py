"""Files of word vectors, as word2vec, fastText and GloVe write them."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = Mapping[str, NDArray[np.float32]]
WORDS = ("the", "cat", "sat", "mat", ",", "e-mail", "new_york", "straße")


def drawn_vectors(words: tuple[str, ...] = WORDS, dimension: int = 5) -> Vectors:
    """Random vectors of words."""
    rows = np.random.default_rng(7).normal(size=(len(words), dimension)).astype(np.float32)
    return dict(zip(words, rows, strict=True))


def _header(vectors: Vectors) -> bytes:
    return f"{len(vectors)} {len(next(iter(vectors.values())))}\n".encode()


def glove(vectors: Vectors) -> bytes:
    """Text without a first line that states the sizes."""
    lines = (" ".join([word, *map(repr, row.tolist())]) for word, row in vectors.items())
    return "".join(f"{line}\n" for line in lines).encode()


def word2vec_text(vectors: Vectors) -> bytes:
    """Text with a first line, and a space at the end of lines as word2vec writes it."""
    return _header(vectors) + glove(vectors).replace(b"\n", b" \n")


def word2vec_binary(vectors: Vectors, line_end: bytes = b"\n") -> bytes:
    """Numbers in fp32; word2vec writes a line end after each vector, other programs none."""
    rows = (word.encode() + b" " + row.tobytes() + line_end for word, row in vectors.items())
    return _header(vectors) + b"".join(rows)


def forms_of(vectors: Vectors) -> Mapping[str, bytes]:
    """The content of each kind of file."""
    forms = {
        "glove": glove(vectors),
        "word2vec-text": word2vec_text(vectors),
        "word2vec-binary": word2vec_binary(vectors),
        "binary-without-line-ends": word2vec_binary(vectors, b""),
    }
    return forms | {f"{name}-gz": gzip.compress(content) for name, content in forms.items()}


def written(path: Path, content: bytes) -> Path:
    """The path of a new file."""
    path.write_bytes(content)
    return path
