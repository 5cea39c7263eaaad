"""Short English sentences with their German translations, for tiny trainings."""

from itertools import product
from pathlib import Path

SUBJECTS = {"The dog": "Der Hund", "The cat": "Die Katze", "A man": "Ein Mann", "Mary": "Maria"}
VERBS = {"sleeps": "schläft", "eats": "isst", "sings": "singt", "waits": "wartet", "sees": "sieht"}
TIMES = {"today": "heute", "here": "hier", "often": "oft", "now": "jetzt"}


def made_lines(num_times: int = 0) -> list[str]:
    """Lines with a sentence and its translation, without times or with this many of them."""
    parts = [SUBJECTS, VERBS, dict(list(TIMES.items())[:num_times])]
    phrases = product(*(part.items() for part in parts if part))
    sides = [[" ".join(side) for side in zip(*phrase, strict=True)] for phrase in phrases]
    return [f"{english}.\t{german}.\n" for english, german in sides]


def write_training_pairs(folder: Path, num_times: int) -> tuple[Path, Path]:
    """Write a training file and one for validation, which has every fifth line; returns them."""
    train, valid, lines = folder / "train.tsv", folder / "valid.tsv", made_lines(num_times)
    train.write_text("".join(line for i, line in enumerate(lines) if i % 5))
    valid.write_text("".join(lines[::5]))
    return train, valid
