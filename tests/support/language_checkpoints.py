"""Tiny checkpoints of causal language models, as ``transformers`` writes them.

`transformers` makes their weights, so names and shapes of the weights are those of the original.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, processors

from tests.support.checkpoint_tokenizers import byte_level_bpe
from tests.support.checkpoints import write_json

END = "<|endoftext|>"
BEGIN = "<|begin|>"
GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}
LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
CLASSES = {
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel, GPT2),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, LLAMA),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM, LLAMA),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, LLAMA),
}
"""The classes of a family and the sizes of its tiny network."""


def write_language_model(folder: Path, family: str, has_start: bool = False, **fields: Any) -> Path:
    """Write a folder of ``family`` and return it; ``fields`` change the configuration.

    With ``has_start``, the tokenizer puts a token before each text.
    """
    folder.mkdir(parents=True)
    tokenizer = start_of_texts(byte_level_bpe([END, BEGIN]), has_start)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": END, "bos_token": BEGIN if has_start else END}
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | special
    )
    config_class, model_class, sizes = CLASSES[family]
    ids = {"bos_token_id": 1 if has_start else 0, "eos_token_id": 0}
    size = {"vocab_size": tokenizer.get_vocab_size()}
    config = config_class(**{**size, **sizes, **ids, "pad_token_id": None, **fields})
    torch.manual_seed(3)
    model = model_class(config)
    with torch.no_grad():  # Biases and factors of norms are 0 and 1 at first.
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    # The switch is also that of the model hub, whose bars other tests look at.
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    transformers.utils.logging.enable_progress_bar()
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# A tiny model\n")
    return folder


def start_of_texts(tokenizer: Tokenizer, has_start: bool) -> Tokenizer:
    """The tokenizer with a step after tokenization that may put a token before a text."""
    steps: list[processors.PostProcessor] = [processors.ByteLevel(trim_offsets=False)]
    if has_start:
        steps.append(
            processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 1)])
        )
    tokenizer.post_processor = processors.Sequence(steps)
    return tokenizer
