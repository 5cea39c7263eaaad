"""Tiny checkpoints of other projects, written file by file as these projects write them.

Names and shapes of the weights are spelled out here a second time, so that a wrong table of an
importer does not go unnoticed. The weights are random.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attendant_export.bundle.importing import sample_texts
from attendant_export.data.tokenizer import train_bert_tokenizer
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from tests.support import checkpoint_tokenizers as tokenizer_of

Shapes = dict[str, tuple[int, ...]]

WIDTH, NUM_LAYERS, FEED_FORWARD, NUM_POSITIONS = 32, 2, 48, 130
ALBERT_EMBEDDING = 8
BERT_TOKENS = {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]", "unk": "[UNK]"}
ALBERT_TOKENS = BERT_TOKENS | {"pad": "<pad>", "unk": "<unk>"}
ROBERTA_TOKENS = {"pad": "<pad>", "cls": "<s>", "sep": "</s>", "mask": "<mask>", "unk": "<unk>"}
BERT_FIELDS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": FEED_FORWARD,
    "max_position_embeddings": NUM_POSITIONS,
}
DISTILBERT_FIELDS = {
    "dim": WIDTH,
    "n_layers": NUM_LAYERS,
    "n_heads": 4,
    "hidden_dim": FEED_FORWARD,
    "max_position_embeddings": NUM_POSITIONS,
}


def write_checkpoint(
    folder: Path, family: str, has_head: bool = True, prefix: str = "", **fields: Any
) -> Path:
    """Write a checkpoint of ``family`` and return ``folder``.

    ``prefix`` is put before the names of the encoder's weights. ``fields`` change the configuration
    after the weights were made.
    """
    tokenizer, tokens, config, shapes_of = _FAMILIES[family](has_head)
    folder.mkdir(parents=True)
    size = tokenizer.get_vocab_size()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": token for name, token in tokens.items()}
    case = {"do_lower_case": False, "strip_accents": False} if tokens is BERT_TOKENS else {}
    write_json(folder / "tokenizer_config.json", special | case)
    config = {"model_type": family, "vocab_size": size, **config, **fields}
    write_json(folder / "config.json", config)
    encoder, head = shapes_of(size)
    shapes = {f"{prefix}{name}": shape for name, shape in encoder.items()}
    save_file(random_tensors(shapes | (head if has_head else {})), folder / "model.safetensors")
    (folder / "README.md").write_text(
        "---\nlicense: cc0-1.0\nlanguage:\n- en\n- de\n---\n# A tiny model\n"
    )
    return folder


def write_sentence_transformer(
    folder: Path,
    pooling: Mapping[str, Any],
    normalizes: bool = False,
    max_tokens: int = 64,
    dense: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write a folder of sentence-transformers around a BERT checkpoint without a head.

    ``dense`` are configurations of dense layers, without their ``in_features``.
    """
    write_checkpoint(folder, "bert", has_head=False)
    return add_modules(folder, pooling, normalizes, max_tokens, dense)


def add_modules(
    folder: Path,
    pooling: Mapping[str, Any],
    normalizes: bool = False,
    max_tokens: int = 64,
    dense: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Add the files of `write_sentence_transformer` to a checkpoint and return ``folder``."""
    names = ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * normalizes]
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(zip(names, paths, strict=True))
        ],
    )
    settings = {"max_seq_length": max_tokens, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", settings)
    width = WIDTH
    for number, config in enumerate(dense, start=2):
        layer = folder / f"{number}_Dense"
        layer.mkdir()
        write_json(layer / "config.json", {"in_features": width, "bias": True, **config})
        shapes = linear("linear", width, config["out_features"])
        if not config.get("bias", True):
            del shapes["linear.bias"]
        save_file(random_tensors(shapes), layer / "model.safetensors")
        width = config["out_features"]
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **pooling})
    return folder


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def change_json(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file that holds an object; None removes a field."""
    content = json.loads(path.read_text(encoding="utf-8")) | fields
    write_json(path, {name: value for name, value in content.items() if value is not None})


def random_tensors(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Random weights; those of norms are around 1."""
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    for name, shape in shapes.items():
        is_norm = "norm" in name.lower() and name.endswith("weight")
        tensor = torch.randn(*shape, generator=generator) * 0.2
        tensors[name] = tensor + 1 if is_norm else tensor
    return tensors


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    """Weight and bias of a linear layer."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int = WIDTH) -> Shapes:
    """Weight and bias of a layer norm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


Family = tuple[Tokenizer, dict[str, str], dict[str, Any], Callable[[int], tuple[Shapes, Shapes]]]
"""Tokenizer, its special tokens, configuration, and shapes of encoder and head by vocabulary."""


def _bert(has_head: bool) -> Family:
    def shapes(vocab_size: int) -> tuple[Shapes, Shapes]:
        encoder = _bert_encoder(vocab_size, num_token_types=2)
        head = {
            **linear("cls.predictions.transform.dense", WIDTH, WIDTH),
            **norm("cls.predictions.transform.LayerNorm"),
            "cls.predictions.bias": (vocab_size,),
        }
        return encoder, head

    config = BERT_FIELDS | {"hidden_act": "gelu_new" if has_head else "gelu"}
    return train_bert_tokenizer(sample_texts(), 400), BERT_TOKENS, config, shapes


def _electra(has_head: bool) -> Family:
    """Has embeddings as narrow as those of ALBERT, and a head with GELU."""
    tokenizer, tokens, config, _ = _bert(has_head)

    def shapes(vocab_size: int) -> tuple[Shapes, Shapes]:
        encoder = _bert_encoder(vocab_size, num_token_types=2)
        del encoder["pooler.dense.weight"], encoder["pooler.dense.bias"]
        for name, shape in encoder.items():
            if name.startswith("embeddings."):
                encoder[name] = (*shape[:-1], ALBERT_EMBEDDING)
        head = {
            **linear("generator_predictions.dense", WIDTH, ALBERT_EMBEDDING),
            **norm("generator_predictions.LayerNorm", ALBERT_EMBEDDING),
            "generator_lm_head.bias": (vocab_size,),
        }
        return encoder | linear("embeddings_project", ALBERT_EMBEDDING, WIDTH), head

    return tokenizer, tokens, config | {"embedding_size": ALBERT_EMBEDDING}, shapes


def _roberta(has_head: bool) -> Family:
    return tokenizer_of.roberta(), ROBERTA_TOKENS, *_roberta_network(has_head)


def _xlm_roberta(has_head: bool) -> Family:
    return tokenizer_of.xlm_roberta(), ROBERTA_TOKENS, *_roberta_network(has_head)


def _roberta_network(
    has_head: bool,
) -> tuple[dict[str, Any], Callable[[int], tuple[Shapes, Shapes]]]:
    def shapes(vocab_size: int) -> tuple[Shapes, Shapes]:
        encoder = _bert_encoder(vocab_size, num_token_types=1)
        head = {
            **linear("lm_head.dense", WIDTH, WIDTH),
            **norm("lm_head.layer_norm"),
            "lm_head.bias": (vocab_size,),
        }
        return encoder, head

    # The head of this family has GELU, whatever the layers have.
    config = {"hidden_act": "relu" if has_head else "gelu", "type_vocab_size": 1, "pad_token_id": 1}
    return BERT_FIELDS | {"layer_norm_eps": 1e-5} | config, shapes


def _distilbert(has_head: bool) -> Family:
    def shapes(vocab_size: int) -> tuple[Shapes, Shapes]:
        encoder = {
            "embeddings.word_embeddings.weight": (vocab_size, WIDTH),
            "embeddings.position_embeddings.weight": (NUM_POSITIONS, WIDTH),
            **norm("embeddings.LayerNorm"),
        }
        for layer in range(NUM_LAYERS):
            name = f"transformer.layer.{layer}"
            for each in ("q_lin", "k_lin", "v_lin", "out_lin"):
                encoder |= linear(f"{name}.attention.{each}", WIDTH, WIDTH)
            encoder |= norm(f"{name}.sa_layer_norm") | norm(f"{name}.output_layer_norm")
            encoder |= linear(f"{name}.ffn.lin1", WIDTH, FEED_FORWARD)
            encoder |= linear(f"{name}.ffn.lin2", FEED_FORWARD, WIDTH)
        head = {
            **linear("vocab_transform", WIDTH, WIDTH),
            **norm("vocab_layer_norm"),
            "vocab_projector.bias": (vocab_size,),
        }
        return encoder, head

    config = DISTILBERT_FIELDS | {"activation": "gelu", "sinusoidal_pos_embds": False}
    return train_bert_tokenizer(sample_texts(), 400), BERT_TOKENS, config, shapes


def _mpnet(has_head: bool) -> Family:
    """Has the names and the head of RoBERTa, but for attention and relative positions."""
    config, shapes = _roberta_network(has_head)
    names = {"self.query": "attn.q", "self.key": "attn.k", "self.value": "attn.v"}
    names |= {"output.dense": "attn.o", "output.LayerNorm": "LayerNorm"}

    def changed(vocab_size: int) -> tuple[Shapes, Shapes]:
        encoder, head = shapes(vocab_size)
        del encoder["embeddings.token_type_embeddings.weight"]
        for theirs, ours in names.items():
            encoder = {
                name.replace(f"attention.{theirs}", f"attention.{ours}"): shape
                for name, shape in encoder.items()
            }
        return encoder | {"encoder.relative_attention_bias.weight": (32, 4)}, head

    config = config | {"relative_attention_num_buckets": 32}
    return tokenizer_of.mpnet(), ROBERTA_TOKENS | {"unk": "[UNK]"}, config, changed


def _albert(has_head: bool) -> Family:
    """All layers share the weights of one, as in published checkpoints."""

    def shapes(vocab_size: int) -> tuple[Shapes, Shapes]:
        encoder: Shapes = {
            "embeddings.word_embeddings.weight": (vocab_size, ALBERT_EMBEDDING),
            "embeddings.position_embeddings.weight": (NUM_POSITIONS, ALBERT_EMBEDDING),
            "embeddings.token_type_embeddings.weight": (2, ALBERT_EMBEDDING),
            **norm("embeddings.LayerNorm", ALBERT_EMBEDDING),
            **linear("encoder.embedding_hidden_mapping_in", ALBERT_EMBEDDING, WIDTH),
            **linear("pooler", WIDTH, WIDTH),
        }
        name = "encoder.albert_layer_groups.0.albert_layers.0"
        for each in ("query", "key", "value", "dense"):
            encoder |= linear(f"{name}.attention.{each}", WIDTH, WIDTH)
        encoder |= norm(f"{name}.attention.LayerNorm") | norm(f"{name}.full_layer_layer_norm")
        encoder |= linear(f"{name}.ffn", WIDTH, FEED_FORWARD)
        encoder |= linear(f"{name}.ffn_output", FEED_FORWARD, WIDTH)
        head = {
            **linear("predictions.dense", WIDTH, ALBERT_EMBEDDING),
            **norm("predictions.LayerNorm", ALBERT_EMBEDDING),
            "predictions.bias": (vocab_size,),
        }
        return encoder, head

    config = BERT_FIELDS | {"embedding_size": ALBERT_EMBEDDING}
    return tokenizer_of.albert(), ALBERT_TOKENS, config, shapes


def _modernbert(has_head: bool) -> Family:
    """A global and a local layer, of which the first has no norm before its attention."""

    def shapes(vocab_size: int) -> tuple[Shapes, Shapes]:
        encoder: Shapes = {
            "embeddings.tok_embeddings.weight": (vocab_size, WIDTH),
            "embeddings.norm.weight": (WIDTH,),
            "layers.1.attn_norm.weight": (WIDTH,),
            "final_norm.weight": (WIDTH,),
        }
        for layer in range(NUM_LAYERS):
            name = f"layers.{layer}"
            encoder |= {
                f"{name}.attn.Wqkv.weight": (3 * WIDTH, WIDTH),
                f"{name}.attn.Wo.weight": (WIDTH, WIDTH),
                f"{name}.mlp_norm.weight": (WIDTH,),
                f"{name}.mlp.Wi.weight": (2 * FEED_FORWARD, WIDTH),
                f"{name}.mlp.Wo.weight": (WIDTH, FEED_FORWARD),
            }
        head: Shapes = {
            "head.dense.weight": (WIDTH, WIDTH),
            "head.norm.weight": (WIDTH,),
            "decoder.bias": (vocab_size,),
        }
        return encoder, head

    # Tokens of sample texts reach beyond the window.
    ids = {"bos": 1, "cls": 1, "eos": 2, "sep": 2, "pad": 3}
    config = BERT_FIELDS | {f"{name}_token_id": token_id for name, token_id in ids.items()}
    config |= {"local_attention": 6, "global_attn_every_n_layers": 3}
    return tokenizer_of.modernbert(), BERT_TOKENS, config, shapes


def _bert_encoder(vocab_size: int, num_token_types: int) -> Shapes:
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (vocab_size, WIDTH),
        "embeddings.position_embeddings.weight": (NUM_POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (num_token_types, WIDTH),
        **norm("embeddings.LayerNorm"),
    }
    for layer in range(NUM_LAYERS):
        name = f"encoder.layer.{layer}"
        for each in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= linear(f"{name}.attention.{each}", WIDTH, WIDTH)
        shapes |= norm(f"{name}.attention.output.LayerNorm") | norm(f"{name}.output.LayerNorm")
        shapes |= linear(f"{name}.intermediate.dense", WIDTH, FEED_FORWARD)
        shapes |= linear(f"{name}.output.dense", FEED_FORWARD, WIDTH)
    return shapes | linear("pooler.dense", WIDTH, WIDTH)


_FAMILIES: dict[str, Callable[[bool], Family]] = {
    "albert": _albert,
    "bert": _bert,
    "camembert": _xlm_roberta,
    "distilbert": _distilbert,
    "electra": _electra,
    "modernbert": _modernbert,
    "mpnet": _mpnet,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
}
FAMILIES = tuple(_FAMILIES)
"""The families whose checkpoints can be written."""
