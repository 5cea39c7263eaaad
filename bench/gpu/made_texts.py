"""Made-up words, and texts of them: measurements of speed need no real language."""

import random
from collections.abc import Sequence

NUM_COMMON_WORDS = 8000
"""Words that texts consist of."""
NUM_WORDS = 40_000
"""Words that fill the vocabularies of the models."""
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def made_up_words(count: int) -> list[str]:
    """Distinct words of two to four syllables, in random order."""
    rng = random.Random(1)
    words = {"".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))): None for _ in range(2 * count)}
    return list(words)[:count]


def made_up_texts(count: int, num_words: int = 0) -> list[str]:
    """Texts of ``num_words`` words each; 0: of 3 to 60 words, most of them short."""
    words, rng = made_up_words(NUM_COMMON_WORDS), random.Random(2)
    lengths = [num_words or min(3 + int(rng.expovariate(1 / 18)), 60) for _ in range(count)]
    return [" ".join(rng.choices(words, k=length)) for length in lengths]


def vocabulary_texts() -> Sequence[str]:
    """Texts to train a tokenizer on: common words become single tokens, others fill the rest."""
    common = " ".join(made_up_words(NUM_COMMON_WORDS))
    return [*made_up_words(NUM_WORDS), *[common] * 20]
