"""Quality metrics: BLEU and chrF of translations, retrieval accuracy of embeddings."""

import sacrebleu
import torch
import torch.nn.functional as F
from torch import Tensor


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
