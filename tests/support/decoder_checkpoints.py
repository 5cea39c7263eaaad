"""Tiny checkpoints of embedding models with the shape of decoders, as folders of their projects.

As in `checkpoints`, names and shapes of the weights are spelled out a second time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attendant_export.bundle.importing import sample_texts
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

from tests.support.checkpoint_tokenizers import byte_level_bpe
from tests.support.checkpoints import (
    FEED_FORWARD,
    NUM_LAYERS,
    NUM_POSITIONS,
    WIDTH,
    Shapes,
    random_tensors,
    write_json,
)

HEADS, KEY_VALUE_HEADS, HEAD_DIM = 4, 2, 16
END = "<|endoftext|>"
"""The last token of texts of Qwen3-Embedding, which is also its padding."""
QWEN3_PROMPT = "Instruct: Find the answer\nQuery:"
QWEN3 = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "rope_scaling": None,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": NUM_LAYERS,
    "tie_word_embeddings": True,
}
GEMMA3_PROMPT = "task: search result | query: "
GEMMA3 = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3TextModel"],
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "rope_scaling": None,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 8,
    "query_pre_attn_scalar": 24,
    "use_bidirectional_attention": True,
    "attn_logit_softcapping": None,
}
IDENTITY = "torch.nn.modules.linear.Identity"
GEMMA3_NORMS = "post_attention", "pre_feedforward", "post_feedforward"
DIMENSIONS = 3 * WIDTH, WIDTH
"""Of the dense layers of Gemma."""
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "head_dim": HEAD_DIM,
    "intermediate_size": FEED_FORWARD,
    "max_position_embeddings": NUM_POSITIONS,
    "attention_bias": False,
}


def write_qwen3(folder: Path, max_tokens: int = 64, **fields: Any) -> Path:
    """Write a folder of Qwen3-Embedding and return it; ``fields`` change the configuration."""
    tokenizer = byte_level_bpe([END, "<|im_start|>", "<|im_end|>"])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)]),
        ]
    )
    special = {"pad_token": END, "eos_token": "<|im_end|>", "model_max_length": 131_072}
    config = {**QWEN3, **SIZES, "vocab_size": tokenizer.get_vocab_size(), **fields}
    _write(folder, tokenizer, special, config, ["post_attention_layernorm"])
    _write_modules(folder, ["Transformer", "Pooling", "Normalize"], max_tokens)
    _write_pooling(folder, "lasttoken", config["hidden_size"])
    prompts = {"prompts": {"query": QWEN3_PROMPT, "document": ""}, "default_prompt_name": None}
    write_json(folder / "config_sentence_transformers.json", prompts)
    return folder


def write_gemma3(folder: Path, max_tokens: int = 64, **fields: Any) -> Path:
    """Write a folder of EmbeddingGemma and return it; ``fields`` change the configuration."""
    tokenizer = _gemma_tokenizer()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    config = {**GEMMA3, **SIZES, "vocab_size": tokenizer.get_vocab_size(), **fields}
    norms = [f"{each}_layernorm" for each in GEMMA3_NORMS]
    _write(folder, tokenizer, special | {"model_max_length": 2048}, config, norms)
    names = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    _write_modules(folder, names, max_tokens)
    _write_pooling(folder, "mean_tokens", config["hidden_size"])
    for number, (inputs, outputs) in enumerate(zip((WIDTH, *DIMENSIONS), DIMENSIONS, strict=False)):
        layer = folder / f"{number + 2}_Dense"
        options = {"bias": False, "activation_function": IDENTITY}
        widths = {"in_features": inputs, "out_features": outputs}
        write_json(layer / "config.json", widths | options)
        weight = {"linear.weight": (outputs, inputs)}
        save_file(random_tensors(weight), layer / "model.safetensors")
    prompts = {"prompts": {"query": GEMMA3_PROMPT, "document": "title: none | text: "}}
    write_json(folder / "config_sentence_transformers.json", prompts)
    return folder


def _gemma_tokenizer() -> Tokenizer:
    """BPE of whole texts whose spaces are marked, with bytes for unknown characters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*special, *letters], show_progress=False
    )
    tokenizer.train_from_iterator(sample_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return tokenizer


def _write(
    folder: Path,
    tokenizer: Tokenizer,
    special: dict[str, Any],
    config: dict[str, Any],
    norms: Sequence[str],
) -> None:
    """Write tokenizer, configuration, weights and card. ``norms`` are further norms of a layer."""
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", special | kind)
    write_json(folder / "config.json", config)
    save_file(random_tensors(_shapes(config["vocab_size"], norms)), folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# A tiny model\n")


def _shapes(vocab_size: int, norms: Sequence[str]) -> Shapes:
    shapes: Shapes = {"embed_tokens.weight": (vocab_size, WIDTH), "norm.weight": (WIDTH,)}
    queries, keys = HEADS * HEAD_DIM, KEY_VALUE_HEADS * HEAD_DIM
    for layer in range(NUM_LAYERS):
        name = f"layers.{layer}"
        shapes |= {f"{name}.{norm}.weight": (WIDTH,) for norm in ("input_layernorm", *norms)}
        shapes |= {
            f"{name}.self_attn.q_proj.weight": (queries, WIDTH),
            f"{name}.self_attn.k_proj.weight": (keys, WIDTH),
            f"{name}.self_attn.v_proj.weight": (keys, WIDTH),
            f"{name}.self_attn.o_proj.weight": (WIDTH, queries),
            f"{name}.self_attn.q_norm.weight": (HEAD_DIM,),
            f"{name}.self_attn.k_norm.weight": (HEAD_DIM,),
            f"{name}.mlp.gate_proj.weight": (FEED_FORWARD, WIDTH),
            f"{name}.mlp.up_proj.weight": (FEED_FORWARD, WIDTH),
            f"{name}.mlp.down_proj.weight": (WIDTH, FEED_FORWARD),
        }
    return shapes


def _write_modules(folder: Path, names: Sequence[str], max_tokens: int) -> None:
    """Write the list of modules, with a folder for each but the first."""
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens})
    for path in paths[1:]:
        (folder / path).mkdir()


def _write_pooling(folder: Path, mode: str, width: int) -> None:
    pooling = {"word_embedding_dimension": width, f"pooling_mode_{mode}": True}
    write_json(folder / "1_Pooling" / "config.json", pooling | {"include_prompt": True})
