"""What a trained model makes of the texts of its data card, good or bad, for the model card."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from attendant_export.bert import Bert
from attendant_export.bert_training import load_bert_model
from attendant_export.translation_training import load_translation_model, translate

NUM_GUESSES = 3


def example_outputs(run_dir: Path, kind: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Each text with its greedy translation, or with the best guesses for its first "[MASK]".

    By the best model of the run in fp32. Raises ValueError for a text without a mask.
    """
    if not texts:
        return []
    if kind == "translation":
        outputs = translate(*load_translation_model(run_dir), list(texts))
        return list(zip(texts, outputs, strict=True))
    bert, tokenizer = load_bert_model(run_dir)
    return [(text, _guesses(bert, tokenizer, text)) for text in texts]


@torch.inference_mode()
def _guesses(model: Bert, tokenizer: Tokenizer, text: str) -> str:
    token_ids = tokenizer.encode(text).ids
    if model.config.mask_id not in token_ids:
        raise ValueError(f"an example of the data card has no [MASK]: {text}")
    hidden = model(torch.tensor([token_ids]))[0, token_ids.index(model.config.mask_id)]
    best = model.mask_logits(hidden[None]).topk(NUM_GUESSES).indices[0]
    return ", ".join(str(tokenizer.id_to_token(int(i))) for i in best)
