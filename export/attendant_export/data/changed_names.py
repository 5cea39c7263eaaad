"""Replaces the names of a sentence pair by other names, the same on both sides."""

import re
from collections import Counter

import numpy as np

_WORD = re.compile(r"(?<![\w'’-])[A-ZÄÖÜ][a-zäöüß]+(?![\w'’-])")
_NO_NAMES = {"April", "August", "September", "November", "Computer", "Hotel", "Restaurant", "Radio"}
"""Capitalized words of both English and German, in titles or at the beginning, that stay."""
_MALE = (
    "Tom John Jack Bob Jim Bill Ken Mike Robert Peter Paul Max Felix Lukas Omar Yusuf Ravi Arjun "
    "Hiroshi Takeshi Carlos Diego Pablo Marco Luca Ivan Dmitri Pavel Kofi Kwame Lars Sven Erik Jan "
    "Mehmet Emre Hassan Ali Daniel Samuel Jonas Leon Oskar Viktor Andreas Stefan Thomas Oliver "
    "Benjamin Simon Jakob Noah Elias Gabriel Mateo Rafael Tariq Minh Jun Sanjay Bruno"
)
_FEMALE = (
    "Mary Maria Jane Alice Emily Linda Kate Lisa Susan Laura Julia Sophie Lena Clara Emma Mia "
    "Aisha Fatima Leila Yuki Sakura Keiko Priya Anjali Meera Carmen Elena Lucia Rosa Giulia Olga "
    "Natasha Irina Ama Zola Ingrid Astrid Freya Elif Zeynep Mariam Hannah Rachel Eva Helena "
    "Katharina Johanna Marie Charlotte Amelie Theresa Monika Petra Sabine Nora Ines Linh Mei Diana"
)
_GROUPS = {name: names for names in (_MALE.split(), _FEMALE.split()) for name in names}
_BEGINS = re.findall(r"\w+", "b br ch d dr f g gr h j k kl kr l m n p r s sch st t tr v w y z")
_VOWELS = re.findall(r"\w+", "a e i o u a e o ai au ei ia")
_ENDS = ["", "", "", *re.findall(r"\w+", "n r s l k m t ck nd rt ng")]


def change_names(source: str, target: str, rng: np.random.Generator) -> tuple[str, str]:
    """The pair with another name for each name that both sides have, equally often.

    A first name becomes one of the same gender, or a word made up of syllables, as other names do.
    A capitalized word at the beginning of the source is a name only if it is a known first name.
    """
    counts = [Counter(_WORD.findall(text)) for text in (source, target)]
    new = {
        word: _another(word, rng)
        for word, count in counts[0].items()
        if count == counts[1][word]
        and word not in _NO_NAMES
        and (word in _GROUPS or not source.startswith(word))
    }
    if not new:
        return source, target

    def replaced(text: str) -> str:
        return _WORD.sub(lambda found: new.get(found[0], found[0]), text)

    return replaced(source), replaced(target)


def _another(name: str, rng: np.random.Generator) -> str:
    group = _GROUPS.get(name)
    if group is not None and rng.random() < 0.5:
        return str(group[rng.integers(len(group))])
    sizes = (len(_BEGINS), len(_VOWELS), len(_ENDS))
    drawn = rng.integers(sizes, size=(rng.integers(1, 4), 3)).tolist()
    return "".join(f"{_BEGINS[b]}{_VOWELS[v]}{_ENDS[e]}" for b, v, e in drawn).capitalize()
