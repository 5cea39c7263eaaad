"""The losses of an encoder's training. They depend on the model, not on its data."""

import torch
import torch.nn.functional as F
from torch import Tensor

from attendant_export.data.hard_negatives import MAX_NEGATIVE_SIMILARITY
from attendant_export.data.masked_text import MaskedBatch
from attendant_export.models.encoder import Encoder
from attendant_export.train.vocabulary_loss import summed_cross_entropy


def masked_loss(model: Encoder, batch: MaskedBatch) -> Tensor:
    """Mean cross-entropy of the masked tokens. Only these are projected to the vocabulary.

    For a share of a batch: the sum over the share, divided by the masked tokens of the whole batch.
    """
    hidden = model(batch.token_ids)[batch.is_target]  # (targets, d_model)
    return summed_cross_entropy(model.mask_logits, hidden, batch.targets) / batch.num_targets


def contrastive_loss(
    first: Tensor, second: Tensor, temperature: float, is_same: Tensor | None = None
) -> Tensor:
    """Symmetric cross-entropy of finding each row's partner among the rows of the other side.

    ``first`` and ``second`` (pairs, d_model) are compared by cosine (InfoNCE, van den Oord et
    al., 2018, with in-batch negatives). Where ``is_same`` (pairs, pairs) is True, a row of the
    other side is neither partner nor negative.
    """
    with torch.autocast(first.device.type, enabled=False):  # bfloat16 cannot tell close cosines.
        cosines = F.normalize(first.float()) @ F.normalize(second.float()).T
    scores = cosines / temperature  # (pairs, pairs)
    if is_same is not None:
        scores = scores.masked_fill(is_same, float("-inf"))
    partners = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, partners) + F.cross_entropy(scores.T, partners)) / 2


def same_meaning(first: Tensor, second: Tensor) -> Tensor:
    """Where rows of a teacher's unit vectors (pairs, width) are too similar to be negatives.

    Partners, on the diagonal, are False.
    """
    with torch.autocast(first.device.type, enabled=False):
        is_same = first @ second.T > MAX_NEGATIVE_SIMILARITY
    return is_same.fill_diagonal_(False)


def distillation_loss(vectors: Tensor, targets: Tensor, num_rows: int) -> Tensor:
    """One minus the cosine of ``vectors`` to the unit vectors ``targets``, (rows, d_model).

    The sum over the rows of a share, divided by the ``num_rows`` of the whole batch.
    """
    cosines = (F.normalize(vectors.float()) * targets).sum(dim=1)
    return (1 - cosines).sum() / num_rows
