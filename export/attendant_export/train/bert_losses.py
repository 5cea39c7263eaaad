"""The losses of an encoder's training. They depend on the model, not on its data."""

import torch
import torch.nn.functional as F
from torch import Tensor

from attendant_export.data.masked_text import MaskedBatch
from attendant_export.models.encoder import Encoder
from attendant_export.train.vocabulary_loss import summed_cross_entropy


def masked_loss(model: Encoder, batch: MaskedBatch) -> Tensor:
    """Mean cross-entropy of the masked tokens. Only these are projected to the vocabulary.

    For a share of a batch: the sum over the share, divided by the masked tokens of the whole batch.
    """
    hidden = model(batch.token_ids)[batch.is_target]  # (targets, d_model)
    return summed_cross_entropy(model.mask_logits, hidden, batch.targets) / batch.num_targets


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Symmetric cross-entropy of finding each row's partner among the rows of the other side.

    ``first`` and ``second`` (pairs, d_model) are compared by cosine (InfoNCE, van den Oord et
    al., 2018, with in-batch negatives).
    """
    scores = F.normalize(first) @ F.normalize(second).T / temperature  # (pairs, pairs)
    partners = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, partners) + F.cross_entropy(scores.T, partners)) / 2
