"""GGUF files of language models with the networks of Llama and GPT-2, with their tokenizers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import DecodingDefaults
from attendant_manifest.part_rules import MAX_TOKENS
from torch import Tensor

from attendant_export.importers import gpt2, llama
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config, Statements
from attendant_export.importers.gguf_file import SUFFIX, GgufFile
from attendant_export.importers.gguf_tokenizer import gguf_tokenizer, start_id
from attendant_export.importers.language_model import ImportedLanguageModel, new_language_model
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.embeddings import longest_text
from attendant_export.models.special_tokens import LanguageModelTokens

LAYER = "blk.{layer}"
NAMES = {
    "target_embedding": "token_embd",
    "target_position_embedding": "position_embd",
    "decoder.{layer}.self_attention_residual.norm": f"{LAYER}.attn_norm",
    "decoder.{layer}.self_attention.output": f"{LAYER}.attn_output",
    "decoder.{layer}.feed_forward_residual.norm": f"{LAYER}.ffn_norm",
    "decoder.{layer}.feed_forward.2": f"{LAYER}.ffn_down",
    "decoder_norm": "output_norm",
    "head.projection": "output",
}
FUSED, FEED_FORWARD = (
    "decoder.{layer}.self_attention.query_key_value",
    "decoder.{layer}.feed_forward.0",
)
LLAMA = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
"""Fields of a configuration of Llama by those of the file, without the name of the network."""
GPT2 = {
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "context_length": "n_positions",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
LEFT_OUT = (
    *("vocab_size", "rope.dimension_count", "attention.value_length"),
    *("attention.causal", "rope.scaling.original_context_length"),
)
"""Fields that repeat others, or that are checked."""


def is_gguf(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is a GGUF file."""
    return checkpoint.file.endswith(SUFFIX)


def statements_of(path: Path) -> Statements:
    """The licence and the languages that a file states; raises CheckpointError."""
    fields = GgufFile(path).fields
    stated, languages = fields.get("general.license"), fields.get("general.languages")
    return Statements(
        license=stated if isinstance(stated, str) else None,
        languages=tuple(map(str, languages)) if isinstance(languages, list) else (),
    )


def read_gguf(checkpoint: Checkpoint) -> ImportedLanguageModel:
    """The model of a file; raises CheckpointError for another network and for bad fields."""
    file = GgufFile(checkpoint.path(checkpoint.file))
    config = Config(file.path, file.fields)
    network, longest = read_gguf_network(file)
    tokenizer = gguf_tokenizer(file.path, config)
    eos_id = config.integer("tokenizer.ggml.eos_token_id", minimum=0)
    pad_id = config.integer("tokenizer.ggml.padding_token_id", default=eos_id, minimum=0)
    tokens = LanguageModelTokens(pad_id, start_id(config), eos_id)
    weights = GgufWeights(file, network)
    model = new_language_model(network, tokens, gguf_weights(network), weights, str(file.path))
    max_tokens = longest_text(network, min(longest, MAX_TOKENS))
    family = str(config.get("general.architecture"))
    return ImportedLanguageModel(family, model, tokenizer, max_tokens, DecodingDefaults())


def read_gguf_network(file: GgufFile) -> tuple[Architecture, int]:
    """The network of a file and the longest text that it states; raises CheckpointError."""
    config = Config(file.path, file.fields)
    name, (_, build) = config.get("general.architecture"), _network(config)
    network = build(Config(file.path, configuration(file)))
    attention = network.decoder.groups[0].self_attention
    config.require(**{f"{name}.rope.dimension_count": attention.head_dim})
    return network, config.integer(f"{name}.context_length")


def configuration(file: GgufFile) -> dict[str, Any]:
    """The fields of the network's configuration on a model hub; raises CheckpointError."""
    config = Config(file.path, file.fields)
    prefix, (names, _) = f"{config.get('general.architecture')}.", _network(config)
    stated = {key.removeprefix(prefix): key for key in file.fields if key.startswith(prefix)}
    _check_fields(config, stated, names)
    known = {theirs: ours for theirs, ours in names.items() if theirs in stated}
    fields = {ours: file.fields[stated[theirs]] for theirs, ours in known.items()}
    if "token_embd.weight" not in file.shapes:
        raise CheckpointError(f"{file.path}: token_embd.weight is missing")
    _check_layers(file, config.num_layers(f"{prefix}block_count"))
    fields["vocab_size"] = file.shapes["token_embd.weight"][0]
    fields["tie_word_embeddings"] = "output.weight" not in file.shapes
    return fields


def _check_layers(file: GgufFile, num_layers: int) -> None:
    """Raise CheckpointError for more layers than the file has, before any takes memory."""
    last = f"blk.{num_layers - 1}.attn_norm.weight"
    if last not in file.shapes:
        raise CheckpointError(f"{file.path}: {last} is missing")


def _check_fields(config: Config, stated: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Raise CheckpointError for a field of the network that changes it and is not known."""
    if others := sorted(stated.keys() - names.keys() - {*LEFT_OUT}):
        found = ", ".join(f"{stated[each]} {config.get(stated[each])!r}" for each in others)
        raise CheckpointError(f"{config.path} has {found}, which is not supported")
    if "attention.causal" in stated:
        config.require(**{stated["attention.causal"]: True})


def _gpt2(config: Config) -> Architecture:
    return gpt2.read_network(config, config.flag("tie_word_embeddings", default=True))


_Network: TypeAlias = tuple[Mapping[str, str], Callable[[Config], Architecture]]
_NETWORKS: Mapping[str, _Network] = {"llama": (LLAMA, llama.read_network), "gpt2": (GPT2, _gpt2)}
"""The names of fields and the network by ``general.architecture``."""


def _network(config: Config) -> _Network:
    found: _Network = config.choice("general.architecture", _NETWORKS)
    return found


def gguf_weights(network: Architecture) -> WeightTable:
    """The names of the weights of a file."""
    group = network.decoder.groups[0]
    attention, is_gated = group.self_attention, group.feed_forward.is_gated
    names: dict[str, str | list[str]] = {**NAMES, FEED_FORWARD: f"{LAYER}.ffn_up"}
    if is_gated:
        names[FEED_FORWARD] = [f"{LAYER}.ffn_gate", f"{LAYER}.ffn_up"]
    names[FUSED] = f"{LAYER}.attn_qkv"
    if attention.HasField("rotary_positions"):
        # Tensors of one parameter have the same size, unless they are listed several times.
        queries = [f"{LAYER}.attn_q"] * (attention.num_heads // attention.num_key_value_heads)
        names[FUSED] = [*queries, f"{LAYER}.attn_k", f"{LAYER}.attn_v"]
    return WeightTable(names=names)


class GgufWeights:
    """The tensors of a file in the layout of the original checkpoints.

    Rotary positions of the file rotate channels 2 i and 2 i + 1, those of the original i and
    i + head_dim / 2. So the rows of queries and keys are in another order.
    """

    def __init__(self, file: GgufFile, network: Architecture) -> None:
        self._file, attention = file, network.decoder.groups[0].self_attention
        self._heads = {"attn_q": attention.num_heads, "attn_k": attention.num_key_value_heads}
        self._is_rotated = attention.HasField("rotary_positions")

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return self._file.shapes

    def read(self, name: str) -> Tensor:
        """One tensor, in fp32."""
        tensor = self._file.read(name)
        heads = self._heads.get(name.split(".")[-2])
        if heads is None or not self._is_rotated:
            return tensor
        pairs = tensor.unflatten(0, (heads, -1, 2))  # (heads, head_dim / 2, 2, ...)
        ordered: Tensor = pairs.transpose(1, 2).flatten(0, 2)
        return ordered
