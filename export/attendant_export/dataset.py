"""Parallel and plain text as batches of token ids. Knows files and tokenizers, not models."""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.ranks import Ranks
from attendant_export.tokenizer import (
    BERT_CLS,
    BERT_MASK,
    BERT_PAD,
    BERT_SEP,
    BERT_UNK,
    BOS,
    PAD,
    special_token_id,
)


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 text file, gzipped if its name ends in ``.gz``, without line ends."""
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\r\n")


def read_pairs(path: Path, swap: bool = False) -> list[tuple[str, str]]:
    """Pairs of a file with ``source<TAB>target`` lines; ``swap`` gives (target, source).

    Raises ValueError naming the line that has not exactly two non-empty columns.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 2 or not all(columns):
            raise ValueError(f"{path}:{number}: want two tab-separated texts, got {len(columns)}")
        pairs.append((columns[1], columns[0]) if swap else (columns[0], columns[1]))
    return pairs


def group_references(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """All targets of each source, in order of first appearance."""
    references: dict[str, list[str]] = {}
    for source, target in pairs:
        references.setdefault(source, []).append(target)
    return references


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """Right-pad token ids to one (batch, longest) tensor."""
    longest = max(map(len, sequences))
    return torch.tensor([[*ids, *[pad_id] * (longest - len(ids))] for ids in sequences])


def group_by_tokens(
    lengths: Sequence[int], max_batch_tokens: int, order: np.ndarray
) -> list[list[int]]:
    """Indices in ``order``, cut so that no batch exceeds ``max_batch_tokens`` when padded.

    A single sequence longer than the limit makes a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in order.tolist():
        longest = max(longest, lengths[index])
        if not batches or longest * (len(batches[-1]) + 1) > max_batch_tokens:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


def num_batches(lengths: Sequence[int], max_batch_tokens: int) -> int:
    """How many batches `shuffled_batches` makes: always as many, as only ties change places."""
    return len(group_by_tokens(lengths, max_batch_tokens, np.argsort(lengths)))


def shuffled_batches(
    lengths: Sequence[int], max_batch_tokens: int, rng: np.random.Generator
) -> list[list[int]]:
    """Batches of similar length, ties and the order of the batches at random."""
    order = np.lexsort((rng.random(len(lengths)), np.asarray(lengths)))
    batches = group_by_tokens(lengths, max_batch_tokens, order)
    return [batches[i] for i in rng.permutation(len(batches))]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """One teacher-forcing batch, right-padded, or one rank's share of its rows."""

    source: Tensor  # (batch, source) ending with the end token
    target_in: Tensor  # (batch, target) beginning with the begin token
    target_out: Tensor  # (batch, target) ending with the end token
    num_targets: int  # real tokens of the whole batch's ``target_out``

    def share(self, ranks: Ranks, device: torch.device) -> "PairBatch":
        """The rows of this rank, on ``device``."""
        tensors = (self.source, self.target_in, self.target_out)
        source, target_in, target_out = (ranks.rows(t).to(device) for t in tensors)
        return PairBatch(source, target_in, target_out, self.num_targets)


class PairDataset:
    """Encoded sentence pairs, batched by padded token count."""

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        tokenizer: Tokenizer,
        max_tokens: int = 128,
    ) -> None:
        """Encode ``pairs``; those with more than ``max_tokens`` on a side are left out."""
        sources = [e.ids for e in tokenizer.encode_batch([s for s, _ in pairs])]
        targets = [e.ids for e in tokenizer.encode_batch([t for _, t in pairs])]
        self.examples = [
            (s, t)
            for s, t in zip(sources, targets, strict=True)
            if len(s) <= max_tokens and len(t) <= max_tokens
        ]
        self.num_left_out = len(pairs) - len(self.examples)
        self._lengths = [max(len(s), len(t)) for s, t in self.examples]
        self._pad_id = special_token_id(tokenizer, PAD)
        self._bos_id = special_token_id(tokenizer, BOS)

    def __len__(self) -> int:
        return len(self.examples)

    def num_batches(self, max_batch_tokens: int) -> int:
        """How many batches an epoch has."""
        return num_batches(self._lengths, max_batch_tokens)

    def batches(self, max_batch_tokens: int, rng: np.random.Generator) -> Iterator[PairBatch]:
        """One epoch of batches in random order."""
        for indices in shuffled_batches(self._lengths, max_batch_tokens, rng):
            sources, targets = zip(*(self.examples[i] for i in indices), strict=True)
            target_out = pad(targets, self._pad_id)
            begin = torch.full((len(indices), 1), self._bos_id)
            target_in = torch.cat([begin, target_out[:, :-1]], dim=1)
            num_targets = sum(map(len, targets))
            yield PairBatch(pad(sources, self._pad_id), target_in, target_out, num_targets)


def read_documents(path: Path) -> Iterator[list[str]]:
    """Paragraphs of each document of a file with an empty line between documents."""
    document: list[str] = []
    for line in read_lines(path):
        if line:
            document.append(line)
        elif document:
            yield document
            document = []
    if document:
        yield document


def join_paragraphs(document: Iterable[str], max_characters: int) -> list[str]:
    """Passages of neighbouring paragraphs, each at most ``max_characters`` long.

    A longer paragraph is a passage of its own.
    """
    passages: list[str] = []
    for paragraph in document:
        if passages and len(passages[-1]) + len(paragraph) < max_characters:
            passages[-1] += " " + paragraph
        else:
            passages.append(paragraph)
    return passages


def draw_texts(texts: Sequence[str], max_characters: int, rng: np.random.Generator) -> list[str]:
    """Texts at random, without replacement, until they hold ``max_characters``."""
    shuffled = [texts[i] for i in rng.permutation(len(texts))]
    total = np.cumsum([len(text) for text in shuffled])
    return shuffled[: int(np.searchsorted(total, max_characters)) + 1]


def encode(texts: Sequence[str], tokenizer: Tokenizer, chunk: int = 10_000) -> Iterator[list[int]]:
    """Token ids of each text; the encodings, bulky, are held for ``chunk`` texts at once."""
    for begin in range(0, len(texts), chunk):
        for encoding in tokenizer.encode_batch(texts[begin : begin + chunk]):
            yield encoding.ids


def encode_in_pieces(
    texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int
) -> list[np.ndarray]:
    """Token ids of ``texts``, cut so that no piece exceeds ``max_tokens``.

    Each piece has the first and last special token of the encoding, [CLS] and [SEP].
    """
    room = max_tokens - 2
    return [
        np.array([first, *ids[start : start + room], last], dtype=np.int32)
        for first, *ids, last in encode(texts, tokenizer)
        for start in range(0, len(ids), room)
    ]


def encode_whole(texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> list[np.ndarray]:
    """Token ids of each text; one over ``max_tokens`` loses the end before its [SEP]."""
    return [
        np.array([*ids[:-1][: max_tokens - 1], ids[-1]], dtype=np.int32)
        for ids in encode(texts, tokenizer)
    ]


def pad_arrays(sequences: Sequence[np.ndarray], pad_id: int) -> Tensor:
    """`pad` for sequences that are kept as arrays."""
    return pad([ids.tolist() for ids in sequences], pad_id)


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """One masked-language-model batch, right-padded, or one rank's share of its rows."""

    token_ids: Tensor  # (batch, length) as the model sees them
    is_target: Tensor  # (batch, length) True where the model must predict
    targets: Tensor  # (targets) token ids that stood there, in row order
    num_targets: int  # of the whole batch

    def share(self, ranks: Ranks, device: torch.device) -> "MaskedBatch":
        """The rows of this rank, on ``device``."""
        is_own = torch.zeros_like(self.is_target)
        ranks.rows(is_own)[:] = True
        return MaskedBatch(
            ranks.rows(self.token_ids).to(device),
            ranks.rows(self.is_target).to(device),
            self.targets[is_own[self.is_target]].to(device),
            self.num_targets,
        )


class MaskedDataset:
    """Token sequences, masked anew whenever they are batched (Devlin et al., section 3.1)."""

    def __init__(
        self, sequences: Sequence[np.ndarray], tokenizer: Tokenizer, mask_ratio: float = 0.15
    ) -> None:
        """``tokenizer`` must have [PAD], [UNK], [CLS], [SEP] and [MASK]."""
        self.sequences, self.mask_ratio = sequences, mask_ratio
        self._lengths = [len(ids) for ids in sequences]
        self._pad_id = special_token_id(tokenizer, BERT_PAD)
        self._mask_id = special_token_id(tokenizer, BERT_MASK)
        self._kept_ids = [
            special_token_id(tokenizer, token) for token in (BERT_PAD, BERT_CLS, BERT_SEP)
        ]
        special_ids = [*self._kept_ids, self._mask_id, special_token_id(tokenizer, BERT_UNK)]
        self._word_ids = np.setdiff1d(np.arange(tokenizer.get_vocab_size()), special_ids)

    def __len__(self) -> int:
        return len(self.sequences)

    def num_batches(self, max_batch_tokens: int) -> int:
        """How many batches an epoch has."""
        return num_batches(self._lengths, max_batch_tokens)

    def batches(self, max_batch_tokens: int, rng: np.random.Generator) -> Iterator[MaskedBatch]:
        """One epoch of batches in random order, with masks drawn from ``rng``."""
        for indices in shuffled_batches(self._lengths, max_batch_tokens, rng):
            yield self.mask(pad_arrays([self.sequences[i] for i in indices], self._pad_id), rng)

    def mask(self, token_ids: Tensor, rng: np.random.Generator) -> MaskedBatch:
        """Choose tokens to predict: 80 % become [MASK], 10 % a random word or piece, 10 % stay."""
        original = token_ids.numpy()
        draws = rng.random(original.shape)
        draws[np.isin(original, self._kept_ids)] = 1
        is_target = draws <= max(self.mask_ratio, draws.min())  # at least one
        kind = rng.random(original.shape)
        masked = np.where(is_target & (kind < 0.8), self._mask_id, original)
        random_ids = rng.choice(self._word_ids, size=original.shape)
        masked = np.where(is_target & (kind >= 0.9), random_ids, masked)
        targets = torch.from_numpy(original[is_target])
        return MaskedBatch(
            torch.from_numpy(masked), torch.from_numpy(is_target), targets, len(targets)
        )


def paraphrase_pairs(pairs: Sequence[tuple[str, str]], max_per_group: int) -> list[tuple[str, str]]:
    """Pairs of sentences of one language that share a translation, for both languages.

    The sentences of a group are paired with their neighbours, ``max_per_group`` pairs at most.
    """
    paraphrases: list[tuple[str, str]] = []
    for direction in (pairs, [(b, a) for a, b in pairs]):
        for translations in group_references(direction).values():
            group = list(dict.fromkeys(translations))
            paraphrases += list(zip(group, group[1:], strict=False))[:max_per_group]
    return paraphrases


class SimilarPairs:
    """Encoded pairs of sentences of one meaning; no batch has a sentence twice."""

    def __init__(
        self, pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, max_tokens: int
    ) -> None:
        """Encode each distinct sentence once; those over ``max_tokens`` lose their end."""
        numbers = {text: i for i, text in enumerate(dict.fromkeys(t for p in pairs for t in p))}
        self._pairs = [(numbers[a], numbers[b]) for a, b in pairs]
        self._sentences = encode_whole(list(numbers), tokenizer, max_tokens)
        self._lengths = [
            max(len(self._sentences[a]), len(self._sentences[b])) for a, b in self._pairs
        ]
        self._pad_id = special_token_id(tokenizer, BERT_PAD)

    def __len__(self) -> int:
        return len(self._pairs)

    def num_batches(self, max_pairs: int) -> int:
        """About how many batches an epoch has: it depends on which pairs meet."""
        return len(self._without_repeats(np.argsort(self._lengths), max_pairs))

    def batches(self, max_pairs: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Both sides (pairs, length) of one epoch's batches of similar length, in random order."""
        order = np.lexsort((rng.random(len(self._pairs)), np.asarray(self._lengths)))
        batches = self._without_repeats(order, max_pairs)
        for i in rng.permutation(len(batches)):
            sides = zip(*(self._pairs[j] for j in batches[i]), strict=True)
            first, second = (
                pad_arrays([self._sentences[s] for s in side], self._pad_id) for side in sides
            )
            yield first, second

    def _without_repeats(self, order: np.ndarray, max_pairs: int) -> list[list[int]]:
        """``order`` in batches; a pair that repeats a sentence of its batch sits this epoch out."""
        batches: list[list[int]] = []
        seen: set[int] = set()
        for index in order.tolist():
            if not batches or len(batches[-1]) == max_pairs:
                batches.append([])
                seen = set()
            if seen.isdisjoint(self._pairs[index]):
                batches[-1].append(index)
                seen.update(self._pairs[index])
        return batches
