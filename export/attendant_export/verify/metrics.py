"""Quality metrics of translations, embeddings and classification heads."""

from collections.abc import Sequence

import numpy as np
import sacrebleu
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from attendant_export.data.labelled_texts import MULTIPLE_CHOICE, SIMILARITY


def score_translations(hypotheses: list[str], references: list[list[str]]) -> dict[str, float]:
    """sacreBLEU and chrF of a corpus with several references per sentence."""
    most = max(map(len, references))
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    return {
        "bleu": sacrebleu.corpus_bleu(hypotheses, streams).score,  # type: ignore[arg-type]
        "chrf": sacrebleu.corpus_chrf(hypotheses, streams).score,  # type: ignore[arg-type]
    }


def retrieval_accuracy(first: Tensor, second: Tensor) -> float:
    """Fraction of rows whose nearest row of the other side, by cosine, is their partner.

    Mean over both directions.
    """
    scores = F.normalize(first) @ F.normalize(second).T  # (sentences, sentences)
    partners = torch.arange(len(scores), device=scores.device)
    hits = [(s.argmax(dim=1) == partners).float().mean().item() for s in (scores, scores.T)]
    return sum(hits) / 2


def measure_answers(
    task: str, scores: Sequence[NDArray[np.float32]], answers: Sequence[float]
) -> dict[str, float]:
    """How well the scores (inputs, labels) of lines give their ``answers``.

    The answers are those of `AnswerScale`. For similarity, Spearman's and Pearson's correlations of
    the scores of pairs as they stand in the file; else the share of right labels or choices.
    """
    if task == SIMILARITY:
        found, wanted = np.array([row[0, 0] for row in scores]), np.array(answers)
        return {
            "spearman": correlation(_ranks(found), _ranks(wanted)),
            "pearson": correlation(1 / (1 + np.exp(-found.astype(np.float64))), wanted),
        }
    chosen = [row[:, 0] if task == MULTIPLE_CHOICE else row[0] for row in scores]
    best = np.array([row.argmax() for row in chosen])
    return {"accuracy": float((best == np.array(answers)).mean())}


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Pearson's correlation; 0 if all values of a side are the same."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value, from 0. Equal values share their mean rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[which])
