"""Text to evaluate models on: sources with their references."""

from pathlib import Path

import numpy as np

from attendant_export.data.text_choice import NO_CHOICE, TextChoice
from attendant_export.data.text_files import group_references, read_pairs


class Corpus:
    """The distinct sources of a file of pairs, each with all of its references."""

    def __init__(
        self,
        path: Path,
        swap: bool,
        max_sentences: int | None = None,
        choice: TextChoice = NO_CHOICE,
    ) -> None:
        """Sample ``max_sentences`` sources with a fixed seed. None: all sources.

        ``choice`` has their languages and controls.
        """
        references = list(group_references(read_pairs(path, swap)).items())
        chosen = np.random.default_rng(0).permutation(len(references))[:max_sentences]
        chosen_texts = f"{path.name} ({choice})" if choice else path.name
        self.name = f"{chosen_texts}, {len(chosen)} sentences, all references"
        self.choice = choice
        self.sources = [references[i][0] for i in chosen]
        self.references = [references[i][1] for i in chosen]


def read_corpus(path: Path, swap: bool, choice: TextChoice) -> Corpus:
    """All sources of a file of pairs with these languages and controls."""
    return Corpus(path, swap, choice=choice)
