"""Files of labelled texts for each task, which a tiny encoder learns within seconds.

What counts is where the word "king" is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from attendant_export.data.labelled_texts import (
    CLASSIFY,
    ENTAILMENT,
    MULTIPLE_CHOICE,
    SIMILARITY,
)

from tests.support.bundles import sentence_pairs

NUM_VALID = 40


def _has_king(text: str) -> bool:
    return "king" in text


def classified(texts: list[str]) -> list[str]:
    """Each text with the label royal or common."""
    return [f"{text}\t{'royal' if _has_king(text) else 'common'}" for text in texts]


def entailed(texts: list[str]) -> list[str]:
    """Pairs with the texts that have the word: none, the first, the second or both."""
    names = {(0, 0): "none", (1, 0): "first", (0, 1): "second", (1, 1): "both"}
    pairs = zip(texts, texts[1:], strict=False)
    return [f"{a}\t{b}\t{names[_has_king(a), _has_king(b)]}" for a, b in pairs]


def similar(texts: list[str]) -> list[str]:
    """Pairs with a score from 0 to 5: more if more texts have the word."""
    pairs = zip(texts, texts[1:], strict=False)
    return [f"{a}\t{b}\t{2.5 * (_has_king(a) + _has_king(b))}" for a, b in pairs]


def chosen(texts: list[str]) -> list[str]:
    """Contexts with two or three choices, of which one has the word."""
    right = [text for text in texts if _has_king(text)]
    wrong = [text for text in texts if not _has_king(text)]
    lines = []
    for number, (context, text) in enumerate(zip(wrong, right, strict=False)):
        choices = wrong[number + 1 : number + 2 + number % 2]
        place = number % (len(choices) + 1)
        choices.insert(place, text)
        lines.append("\t".join([context, *choices, str(place + 1)]))
    return lines


WRITERS: Mapping[str, Callable[[list[str]], list[str]]] = {
    CLASSIFY: classified,
    ENTAILMENT: entailed,
    SIMILARITY: similar,
    MULTIPLE_CHOICE: chosen,
}


def write_labelled(folder: Path, task: str) -> Path:
    """Write ``train.tsv`` and ``valid.tsv`` of a task and return ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [english for english, _ in sentence_pairs()]
    for name, part in {"train": texts[:-NUM_VALID], "valid": texts[-NUM_VALID:]}.items():
        lines = WRITERS[task](part)
        (folder / f"{name}.tsv").write_text("".join(f"{line}\n" for line in lines))
    return folder
