"""Tells pairs in other languages, with py3langid; its only user in the exporter.

The library is an extra of the package. Its model takes about a second to load, and keeps 80 MB. A
text takes 0.3 ms.
"""

import importlib.util
import math

EXTRA = "attendant-export[detection]"
MARGIN = 1.0
"""A text is in another language if that is likelier by more than this, in the logarithm of the
probability. Of 2,000 pairs of Tatoeba, 0.3 % exceed it, and all do with their sides swapped."""


def is_installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec("py3langid") is not None


def is_in_language(text: str, language: str) -> bool:
    """Whether ``text`` may be in ``language``; true for a text without any trait of a language.

    ``language`` is a code of the library, mostly ISO 639-1. Raises ValueError if there is none.
    """
    from py3langid import langid

    ranked = langid.rank(text)
    scores = dict(ranked)
    if language not in scores:
        raise ValueError(f"{language} is none of the languages that can be told: {sorted(scores)}")
    # The parts of a text depend on each other, so that a long text would seem certain.
    temperature = math.sqrt(max(1, len(text.encode())))
    return bool((ranked[0][1] - scores[language]) / temperature <= MARGIN)
