"""Identification of the languages of texts with py3langid; its only user.

The library is an extra of the package. Its model takes about a second to load, and keeps 80 MB.
"""

import importlib.util
import io
import lzma
import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

LIBRARY, EXTRA = "py3langid", "attendant-server[detection]"
TAGS = {"kik": "ki"}
"""The BCP 47 tags of languages for which the library has another code."""


def is_installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec(LIBRARY) is not None


class LanguageIdentifier:
    """A loaded model. Any thread."""

    def __init__(self) -> None:
        """Load the model; blocks."""
        self._model = _loaded_model()
        self.languages = frozenset(TAGS.get(label, label) for label in self._model.labels)
        """The BCP 47 tags of all languages that it knows."""

    def log_probabilities(self, text: str) -> Mapping[str, float]:
        """The log-probability of each language, less a constant that all of them share.

        Empty for a text without any trait of a language.
        """
        ranked = self._model.rank(text)
        if ranked[0][1] == ranked[-1][1]:
            return {}
        # The library divides by this, too, before it normalizes: the parts of a text depend on each
        # other, so that a long text would seem certain.
        temperature = math.sqrt(len(text.encode()))
        return {TAGS.get(label, label): score / temperature for label, score in ranked}


def _loaded_model() -> Any:
    """The library's model, as the library loads it, but without its temporary file."""
    from py3langid import langid

    with lzma.open(langid.MODEL_DIR / langid.MODEL_FILE) as file:
        content = io.BytesIO(file.read())
    with np.load(content, allow_pickle=False) as arrays:
        next_states, rows = (
            # Python reads single items of these faster than those of NumPy's arrays.
            array(found.dtype.char, found.tobytes())
            for found in (arrays["nextmove"], arrays["nextmove_row"])
        )
        return langid.LanguageIdentifier(
            arrays["ptc"],
            arrays["pc"],
            arrays["classes"].tolist(),
            next_states,
            arrays["out_feat"].tolist(),
            tk_row=rows,
        )
