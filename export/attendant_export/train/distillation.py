"""What a student learns from a teacher: targets of its vectors, hard negatives, further texts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.array_folders import FolderWriter, open_or_build, read_folder
from attendant_export.data.bad_lines import counted
from attendant_export.data.batches import encode_whole, pad
from attendant_export.data.bert_text import BertData, SimilarSentences, read_teacher_texts
from attendant_export.data.hard_negatives import find_neighbours
from attendant_export.data.similar_pairs import SimilarPairs
from attendant_export.data.teacher_vectors import EmbedTexts, TeacherVectors, read_or_embed
from attendant_export.models.encoder import Encoder
from attendant_export.stopping import stopped_by_signals
from attendant_export.train.distributed import ProcessGroup
from attendant_export.train.sentence_vectors import embed_texts

logger = logging.getLogger(__name__)

CACHE, PROJECTION = "data", "projection"
"""Folders of a run: the teacher's vectors, and what gives them the student's width."""
NUM_SAMPLED = 8192
"""Texts from which the projection is computed."""
DISTILLATION_WEIGHT, NUM_HARD_NEGATIVES = 5.0, 3
"""Defaults of the `DistillationOptions`."""


@dataclass(frozen=True, slots=True)
class DistillationOptions:
    """A teacher, and how a student learns from it."""

    embed: EmbedTexts
    """Returns the teacher's vectors of texts."""
    key: str
    """A hash of all that these vectors depend on, apart from the texts."""
    weight: float = DISTILLATION_WEIGHT
    """Weight of the distance to the teacher's vectors, relative to the contrastive loss."""
    num_hard_negatives: int = NUM_HARD_NEGATIVES
    """Similar pairs that share the batch of a pair; 0: pairs are drawn by length only."""
    cache_dir: Path | None = None
    """Folder of the vectors, which several runs may share; None: a folder of the run."""


class Distillation:
    """The vectors of a teacher as targets of a student."""

    def __init__(
        self,
        vectors: TeacherVectors,
        rows: Mapping[str, int],
        projection: NDArray[np.float32],
        further: tuple[Sequence[str], Sequence[NDArray[np.int32]]],
        pad_id: int,
        options: DistillationOptions,
    ) -> None:
        """``rows`` are the places of texts in ``vectors``; a translation has that of its source.

        ``projection`` is (teacher's width, d_model). ``further`` are texts to learn from that are
        in no pair, and their token ids, which are padded with ``pad_id``.
        """
        self._vectors, self._rows, self._projection = vectors, rows, projection
        self._further, self._pad_id, self._options = further, pad_id, options

    @property
    def weight(self) -> float:
        """Weight of the loss."""
        return self._options.weight

    @property
    def has_further_texts(self) -> bool:
        """Whether there are texts that are in no pair."""
        return bool(self._further[0])

    def targets_of(self, texts: Sequence[str]) -> Tensor:
        """The vectors (texts, d_model) that the student's are drawn to, of length 1."""
        rows = np.array([self._rows[text] for text in texts])
        return F.normalize(torch.from_numpy(self._vectors[rows] @ self._projection))

    def batches(self, max_texts: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Token ids (texts, length) and targets of the further texts, once and in random order.

        Texts of similar length share a batch.
        """
        texts, sequences = self._further
        order = np.lexsort((rng.random(len(texts)), np.array([len(ids) for ids in sequences])))
        chunks = [order[i : i + max_texts] for i in range(0, len(order), max_texts)]
        for number in rng.permutation(len(chunks)):
            chosen = chunks[number].tolist()
            token_ids = pad([sequences[i] for i in chosen], self._pad_id)
            yield token_ids, self.targets_of([texts[i] for i in chosen])

    def hard_negatives(self, pairs: SimilarPairs) -> NDArray[np.int32] | None:
        """The most similar pairs of each pair, as `find_neighbours`; None if none are wanted."""
        if not self._options.num_hard_negatives:
            return None
        rows = np.array([self._rows[pairs.texts[first]] for first, _ in pairs.pairs])
        return find_neighbours(self._vectors, rows, pairs.lengths, self._options.num_hard_negatives)

    def mean_cosine(self, texts: Sequence[str], vectors: Tensor) -> float:
        """The mean cosine of the student's ``vectors`` (texts, d_model) to their targets."""
        targets = self.targets_of(texts).to(vectors.device)
        return F.cosine_similarity(vectors, targets).mean().item()


def prepare_distillation(
    model: Encoder,
    tokenizer: Tokenizer,
    data: BertData,
    sentences: SimilarSentences,
    options: DistillationOptions,
    run_dir: Path,
    processes: ProcessGroup,
) -> Distillation:
    """Compute the vectors that are not there yet, and the projection of a run that begins.

    The teacher reads the first sentence of each pair of translations; its vector is the target of
    both. Raises ValueError as `read_teacher_texts` and the teacher, and Stopped after a signal.
    """
    texts, sequences = _short_texts(read_teacher_texts(data), tokenizer, data.max_tokens)
    sources = [first for first, _ in sentences.valid + sentences.translations]
    taught = list(dict.fromkeys([*sources, *texts]))
    cache_dir = run_dir / CACHE if options.cache_dir is None else options.cache_dir
    with processes.first_alone(), stopped_by_signals():
        vectors = read_or_embed(taught, cache_dir / f"teacher-{options.key}", options.embed)
        projection = _projection(model, tokenizer, data.max_tokens, taught, vectors, run_dir)
    rows = {text: row for row, text in enumerate(taught)}
    for first, second in sentences.valid + sentences.translations:
        rows.setdefault(second, rows[first])
    further = texts, sequences
    return Distillation(vectors, rows, projection, further, model.tokens.pad_id, options)


def _short_texts(
    texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int
) -> tuple[list[str], list[NDArray[np.int32]]]:
    """Texts of at most ``max_tokens`` tokens, and their token ids."""
    sequences = encode_whole(texts, tokenizer, max_tokens + 1)
    kept = [i for i, ids in enumerate(sequences) if len(ids) <= max_tokens]
    if left_out := len(texts) - len(kept):
        logger.info("left out: %s for the teacher, too long", counted(left_out, "text"))
    return [texts[i] for i in kept], [sequences[i] for i in kept]


def _projection(
    model: Encoder,
    tokenizer: Tokenizer,
    max_tokens: int,
    texts: Sequence[str],
    vectors: TeacherVectors,
    run_dir: Path,
) -> NDArray[np.float32]:
    """The projection of the run, computed from a sample if the run has none yet."""

    def build(writer: FolderWriter) -> Mapping[str, Any]:
        rows = np.random.default_rng(0).permutation(len(texts))[:NUM_SAMPLED]
        was_training = model.training
        student = embed_texts(model.eval(), tokenizer, [texts[i] for i in rows], max_tokens)
        model.train(was_training)
        found = fit_projection(vectors[rows], F.normalize(student).cpu().numpy())
        writer.append(PROJECTION, found.reshape(-1))
        return {"width": vectors.width}

    open_or_build(run_dir / PROJECTION, build)
    return read_projection(run_dir)


def read_projection(run_dir: Path) -> NDArray[np.float32]:
    """The projection of a run, (teacher's width, d_model).

    Raises FileNotFoundError if there is none, and ValueError if it is damaged.
    """
    folder = read_folder(run_dir / PROJECTION)
    found: NDArray[np.float32] = folder.arrays[PROJECTION].reshape(folder.facts["width"], -1)
    return found


def fit_projection(
    teacher: NDArray[np.float32], student: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A projection of the teacher's vectors to the student's width, (teacher's width, d_model).

    It keeps the directions in which ``teacher`` (texts, width) varies most, so that cosines stay
    about the same, and rotates them to the vectors ``student`` (texts, d_model) of the same texts,
    so that the student has to change least (orthogonal Procrustes problem).
    """
    width = student.shape[1]
    _, axes = np.linalg.eigh(teacher.T.astype(np.float64) @ teacher)
    axes = axes[:, ::-1][:, :width]  # (teacher's width, kept), the largest first
    axes = np.pad(axes, ((0, 0), (0, width - axes.shape[1])))
    left, _, right = np.linalg.svd((teacher @ axes).T @ student)
    projection: NDArray[np.float32] = (axes @ left @ right).astype(np.float32)
    return projection
