"""Tokenizers of whole words, for word vectors: of the words of a file, or of words in a text.

Depends on the ``tokenizers`` library, not on models.
"""

import re
from collections.abc import Collection, Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

UNKNOWN = "[UNK]"
"""Stands for all words that the vocabulary lacks. Its id is 0."""
UNKNOWN_ID = 0
APOSTROPHE, TYPOGRAPHIC = "'", "\u2019"
NEGATION, CLITICS = "n't", ("'s", "'re", "'ve", "'ll", "'d", "'m")
"""Ends of English words that the Penn Treebank, and so GloVe, has as words of their own."""
JOINED = re.compile(r"(?<=\w)[^\w\s](?=\w)")
"""Punctuation within a word."""
MIN_JOINED = 1e-3
"""Share of words with a character in them from which on texts are not split at this character."""


def is_word(text: str) -> bool:
    """Whether a vocabulary may have this word: it has no white space, and is not `UNKNOWN`."""
    return text.split() == [text] and text != UNKNOWN


def word_tokenizer(ids: dict[str, int]) -> Tokenizer:
    """A tokenizer of whole words, with the ids of words and of `UNKNOWN`.

    Texts are lower-cased if no word has a letter that is not, and typographic apostrophes become
    ASCII ones if no word has a typographic one.
    """
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    steps: list[normalizers.Normalizer] = []
    if all(word == word.lower() for word in ids if word != UNKNOWN):
        steps.append(normalizers.Lowercase())
    if not any(TYPOGRAPHIC in word for word in ids):
        steps.append(normalizers.Replace(TYPOGRAPHIC, APOSTROPHE))
    tokenizer.normalizer = normalizers.Sequence(steps)
    pattern = Regex(word_pattern(ids))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "removed", invert=True)
    return tokenizer


def word_pattern(words: Collection[str]) -> str:
    """The regular expression of what is a word in a text, with the syntax of Oniguruma.

    A word is a run of letters, digits and underscores, or one other character. Runs are joined by
    a character between them if words of the file are, and English clitics such as ``n't`` are
    words of their own if they are in the file.
    """
    clitics = [clitic for clitic in CLITICS if clitic in words]
    joiners = _joiners(words)
    alternatives = []
    if NEGATION in words:
        alternatives += [rf"\w+?(?={NEGATION}\b)", rf"{NEGATION}\b"]
    if clitics:
        alternatives.append(rf"(?:{'|'.join(clitics)})\b")
    if clitics or NEGATION in words:
        joiners.discard(APOSTROPHE)
    return "|".join([*alternatives, *_runs_and_signs(joiners)])


def _runs_and_signs(joiners: Collection[str]) -> list[str]:
    """The patterns of runs of letters that ``joiners`` may join, and of other characters."""
    joined = "|".join(re.escape(joiner) for joiner in sorted(joiners))
    return [rf"\w+(?:(?:{joined})\w+)*" if joined else r"\w+", r"[^\w\s]"]


def _joiners(words: Collection[str]) -> set[str]:
    """The characters at which words are not split."""
    counts: dict[str, int] = {}
    for word in words:
        for joiner in set(JOINED.findall(word)):
            counts[joiner] = counts.get(joiner, 0) + 1
    return {joiner for joiner, count in counts.items() if count >= MIN_JOINED * len(words)}


def train_word_tokenizer(
    texts: Iterable[str], max_words: int, min_count: int, lower_case: bool = True
) -> Tokenizer:
    """A tokenizer of the most frequent words of ``texts``, which occur ``min_count`` times each.

    A word is a run of letters, digits and underscores, which apostrophes may join, or one other
    character. Frequent words have small ids, after that of `UNKNOWN`; there are at most
    ``max_words``. Raises ValueError if no word is frequent enough.
    """
    steps: list[normalizers.Normalizer] = [normalizers.NFC()]
    steps += [normalizers.Lowercase()] if lower_case else []
    steps.append(normalizers.Replace(TYPOGRAPHIC, APOSTROPHE))
    splits = pre_tokenizers.Split(
        Regex("|".join(_runs_and_signs([APOSTROPHE]))), "removed", invert=True
    )
    counted = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    counted.normalizer, counted.pre_tokenizer = normalizers.Sequence(steps), splits
    trainer = trainers.WordLevelTrainer(
        vocab_size=max_words + 1,
        min_frequency=min_count,
        special_tokens=[UNKNOWN],
        show_progress=False,
    )
    counted.train_from_iterator(texts, trainer)
    ids = counted.get_vocab()
    if len(ids) == 1:
        raise ValueError(f"no word occurs {min_count} times, want less for --min-count")
    # Not the trained one, in which a text may name the unknown word.
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = counted.normalizer, splits
    return tokenizer
