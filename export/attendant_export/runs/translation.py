"""Greedy translation by the PyTorch model, for validation during training and for model cards."""

from collections.abc import Sequence

import torch

from attendant_export.data.batches import pad
from attendant_export.data.output_limits import max_output_tokens
from attendant_export.data.pair_tokenizer import NO_MARKS, Marks, PairTokenizer
from attendant_export.models.embeddings import longest_text, position_limit
from attendant_export.models.encoder_decoder import EncoderDecoder

BATCH_SIZES = {"cpu": 64, "cuda": 1024}
"""Texts that are translated together on each device. Steps of few texts leave a GPU idle."""


def translate(
    model: EncoderDecoder,
    tokenizer: PairTokenizer,
    texts: Sequence[str],
    marks: Marks = NO_MARKS,
) -> list[str]:
    """Greedy translations in the order of ``texts``, with ``marks`` next to each text.

    Texts of similar length share a batch. Each output ends at its `max_output_tokens`. Learned
    positions of the model limit texts and outputs.
    """
    network = model.architecture
    sources = tokenizer.encode_sources(texts, marks, position_limit(network))
    size = BATCH_SIZES[model.embedding.weight.device.type]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    translations = [""] * len(sources)
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        limits = [longest_text(network, max_output_tokens(len(sources[i]))) for i in indices]
        outputs = greedy(
            *(model, [sources[i] for i in indices], max(limits)),
            *(marks.before_target, tokenizer.suppressed_ids),
        )
        for i, token_ids, limit in zip(indices, outputs, limits, strict=True):
            translations[i] = tokenizer.decode(token_ids[:limit])
    return translations


@torch.inference_mode()
def greedy(
    model: EncoderDecoder,
    sources: Sequence[Sequence[int]],
    max_tokens: int,
    forced_ids: Sequence[int] = (),
    suppressed_ids: Sequence[int] = (),
) -> list[list[int]]:
    """Greedy search over a padded batch of source token ids, with cached states.

    Each output begins with ``forced_ids`` and has no ``suppressed_ids``. Returns output token ids,
    including the end token if it occurred within ``max_tokens``.
    """
    special, device = model.tokens, model.embedding.weight.device
    target, past, memory, mask = model.start(pad(sources, special.pad_id).to(device))
    finished = torch.zeros(len(sources), dtype=torch.bool, device=device)
    for step in range(max_tokens):
        hidden, past = model.decode(target[:, -1:], memory, mask, past)
        if step < len(forced_ids):
            token = torch.full_like(target[:, 0], forced_ids[step])
        else:
            scores = model.logits(hidden[:, -1])  # (batch, vocab)
            if suppressed_ids:
                scores[:, list(suppressed_ids)] = -torch.inf
            token = scores.argmax(-1)  # (batch)
            finished |= token == special.eos_id
        target = torch.cat([target, token[:, None]], dim=1)
        if finished.all():
            break
    return [_up_to_end(ids, special.eos_id) for ids in target[:, 1:].tolist()]


def _up_to_end(token_ids: list[int], eos_id: int) -> list[int]:
    """``token_ids`` up to the first end token, which is included."""
    end = token_ids.index(eos_id) + 1 if eos_id in token_ids else len(token_ids)
    return token_ids[:end]
