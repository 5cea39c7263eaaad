"""Folders of sentence-transformers: an encoder, its pooling, dense layers and normalization.

``modules.json`` lists the modules that a text passes, in order. Without it, a checkpoint is an
encoder only, and the defaults are those that sentence-transformers then uses: mean pooling.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from attendant.v1 import architecture_pb2, embedding_pb2
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    ACTIVATION_TANH,
    ACTIVATION_UNSPECIFIED,
    Dense,
    TextVectors,
)
from attendant.v1.bundle_pb2 import EmbeddingDefaults
from attendant.v1.embedding_pb2 import (
    POOLING_CLS,
    POOLING_LAST,
    POOLING_MAX,
    POOLING_MEAN,
    POOLING_MEAN_SQRT_LENGTH,
    POOLING_WEIGHTED_MEAN,
)
from tokenizers import Tokenizer, normalizers

from attendant_export.importers.checkpoint import (
    Checkpoint,
    CheckpointError,
    Config,
    is_plain_name,
)
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.prompts import count_prompt_tokens, read_prompts
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.text_vectors import DenseLayers

PACKAGE = "sentence_transformers."
MODULES = "modules.json"
ENCODER_SETTINGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names of the settings of the encoder. The first one that is there is read."""
MAX_SEQ_LENGTH = "max_seq_length"
"""The limit of tokens of a text, which counts instead of that of the tokenizer."""
TASK = "feature-extraction"
ENCODER_ARGUMENTS = tuple(
    f"{part}_{ending}"
    for part, ending in product(("model", "config", "tokenizer", "processor"), ("args", "kwargs"))
)
"""Arguments by which the package loads the encoder, in older and newer settings."""
ARGUMENTS_WITHOUT_EFFECT = (
    *("add_pooling_layer", "attn_implementation", "code_revision", "device_map", "dtype"),
    *("low_cpu_mem_usage", "padding_side", "revision", "torch_dtype", "trust_remote_code"),
    *("unpad_inputs", "use_fast", "use_memory_efficient_attention", "use_safetensors"),
)
"""Arguments that change vectors by rounding at most."""
LOWER_CASE = "do_lower_case"
NO_LOWER_CASE = {LOWER_CASE: False}
NO_ROLES = dict.fromkeys(("query_length", "document_length", "query_expansion"))
ENCODER_DEFAULTS = NO_LOWER_CASE | NO_ROLES
MODALITIES = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
"""The output of the encoder that is supported, if ``modality_config`` states it."""
POOLINGS = {
    "pooling_mode_mean_tokens": POOLING_MEAN,
    "pooling_mode_cls_token": POOLING_CLS,
    "pooling_mode_max_tokens": POOLING_MAX,
    "pooling_mode_lasttoken": POOLING_LAST,
    "pooling_mode_weightedmean_tokens": POOLING_WEIGHTED_MEAN,
    "pooling_mode_mean_sqrt_len_tokens": POOLING_MEAN_SQRT_LENGTH,
}
POOLING_NAMES = {
    "mean": POOLING_MEAN,
    "cls": POOLING_CLS,
    "max": POOLING_MAX,
    "lasttoken": POOLING_LAST,
    "weightedmean": POOLING_WEIGHTED_MEAN,
    "mean_sqrt_len_tokens": POOLING_MEAN_SQRT_LENGTH,
}
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"
DENSE_ACTIVATIONS: dict[str, architecture_pb2.Activation.ValueType] = {
    IDENTITY: ACTIVATION_UNSPECIFIED,
    TANH: ACTIVATION_TANH,
    "torch.nn.modules.activation.ReLU": ACTIVATION_RELU,
    "torch.nn.modules.activation.GELU": ACTIVATION_GELU,
    "torch.nn.modules.activation.SiLU": ACTIVATION_SILU,
}
DENSE_WEIGHTS = WeightTable(names={"linear": "linear"})
TEXT_VECTORS = dict.fromkeys(("module_input_name", "module_output_name"), "sentence_embedding")
"""The values that a module between vectors of texts has, if they are given."""
STATIC = "StaticEmbedding"
"""The module of static embeddings, which also pools them."""
SEQUENCE = re.compile(f"(Transformer Pooling|{STATIC})( Dense)*( Normalize)?")


@dataclass(frozen=True, slots=True)
class Module:
    """A module that a text passes: the name of its class, and its folder, "" for the root."""

    name: str
    path: str


def is_sentence_transformer(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint lists the modules of sentence-transformers."""
    return checkpoint.has(MODULES)


def with_defaults(encoder: ImportedEncoder, checkpoint: Checkpoint) -> ImportedEncoder:
    """``encoder`` with the defaults of its folder. Raises CheckpointError for other modules."""
    modules = read_modules(checkpoint)
    settings = check_encoder_settings(checkpoint, required=NO_ROLES)
    if lowers_case(settings):
        add_lower_case(encoder.tokenizer)
    pooling = module_config(checkpoint, modules[1])
    model, prompts = encoder.model, read_prompts(checkpoint, encoder.tokenizer)
    vectors = model.architecture.text_vectors
    vectors.excludes_prompt = not pooling.flag("include_prompt", default=True)
    model.dense = read_dense_layers(checkpoint, model.architecture.d_model)
    vectors.dense_layers.extend(model.dense.part.dense_layers)
    defaults = EmbeddingDefaults(
        pooling=_pooling(pooling),
        normalize=modules[-1].name == "Normalize",
        prompts=prompts.texts,
        default_prompt=prompts.default,
    )
    if vectors.excludes_prompt:
        prompt = prompts.texts.get(prompts.default, "")
        defaults.num_prompt_tokens = count_prompt_tokens(encoder.tokenizer, prompt)
    return replace(encoder.with_stated_limit(settings, MAX_SEQ_LENGTH), defaults=defaults)


def lowers_case(settings: Config) -> bool:
    """Whether the settings of an encoder lower the case of texts; raises CheckpointError."""
    return settings.flag(LOWER_CASE, default=False)


def add_lower_case(tokenizer: Tokenizer) -> None:
    """Let a tokenizer lower the case of texts before its own normalization, as the package does."""
    own = tokenizer.normalizer
    steps = [normalizers.Lowercase()] if own is None else [normalizers.Lowercase(), own]
    tokenizer.normalizer = normalizers.Sequence(steps)


def read_dense_layers(checkpoint: Checkpoint, d_model: int) -> DenseLayers:
    """The dense layers of a checkpoint with their weights; none without a list of modules.

    Raises CheckpointError for layers that are not supported, and for weights of other shapes.
    """
    modules = read_modules(checkpoint) if is_sentence_transformer(checkpoint) else []
    return load_dense_layers(checkpoint, modules, d_model, "sentence_embedding", TANH)


def load_dense_layers(
    checkpoint: Checkpoint,
    modules: Sequence[Module],
    d_model: int,
    vectors: str,
    default_activation: str,
) -> DenseLayers:
    """The dense layers among ``modules`` with their weights; ``vectors`` is what they read.

    ``default_activation`` is that of layers which state none.
    Raises CheckpointError for layers that are not supported, and for weights of other shapes.
    """
    part, folders, width = TextVectors(), [], d_model
    for module in modules:
        if module.name == "Dense":
            folders.append(module.path)
            config = module_config(checkpoint, module)
            part.dense_layers.append(_dense(config, width, vectors, default_activation))
            width = part.dense_layers[-1].d_output
    with torch.device("meta"):
        layers = DenseLayers(part, d_model)
    for layer, folder in zip(layers, folders, strict=True):
        try:
            DENSE_WEIGHTS.load(layer, checkpoint.weights_in(folder))
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint.folder / folder}: {error}") from error
    return layers


def read_modules(checkpoint: Checkpoint) -> list[Module]:
    """The modules, which are of a supported sequence. Raises CheckpointError."""
    path = checkpoint.folder / MODULES
    modules = [Module(each.name, _path(each.path)) for each in listed_modules(checkpoint)]
    if not SEQUENCE.fullmatch(" ".join(module.name for module in modules)):
        names = ", ".join(module.name for module in modules)
        raise CheckpointError(
            f"{path}: the modules {names} are not supported; supported: Transformer, Pooling "
            f"or {STATIC}, then any number of Dense, and Normalize or no more; or MLMTransformer, "
            "SpladePooling"
        )
    first = modules[0]
    if first.path != "" and first.name != STATIC:
        raise CheckpointError(f"{path}: the path of Transformer is {first.path!r}, want ''")
    check_folders(path, modules[1:] if first.path == "" else modules)
    if modules[-1].name == "Normalize" and checkpoint.has(_config_name(modules[-1])):
        module_config(checkpoint, modules[-1]).require(**TEXT_VECTORS)
    return modules


def listed_modules(checkpoint: Checkpoint) -> list[Module]:
    """The modules as the checkpoint lists them. Raises CheckpointError for another form."""
    entries: Any = checkpoint.json(MODULES)
    try:
        return [Module(class_name(entry["type"]), entry["path"]) for entry in entries]
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint.folder / MODULES} is no list of modules") from error


def check_folders(path: Path, modules: Sequence[Module]) -> None:
    """Raise CheckpointError for a module elsewhere than in a folder of the checkpoint."""
    for module in modules:
        if not is_plain_name(module.path):
            raise CheckpointError(
                f"{path}: the path of {module.name} is {module.path!r}, want a folder's name"
            )


def class_name(type_: str) -> str:
    """The name of a class of sentence-transformers; the whole path of any other class."""
    return type_.rpartition(".")[2] if type_.startswith(PACKAGE) else type_


def _path(path: str) -> str:
    return "" if path == "." else path


def _config_name(module: Module) -> str:
    return f"{module.path}/config.json"


def module_config(checkpoint: Checkpoint, module: Module) -> Config:
    """The settings of a module in a folder of its own. Raises CheckpointError without any."""
    name = _config_name(module)
    return Config(checkpoint.folder / name, checkpoint.json_object(name))


def check_encoder_settings(
    checkpoint: Checkpoint,
    task: str = TASK,
    wanted: Mapping[str, Any] = MODALITIES,
    default_task: str = TASK,
    required: Mapping[str, Any] = ENCODER_DEFAULTS,
) -> Config:
    """The settings of the encoder; raises CheckpointError for those that are not supported.

    ``task`` and ``wanted``, the modalities, are those that are supported; ``default_task`` is that
    of settings which state none. ``required`` are other settings that cannot be changed.
    """
    settings = encoder_settings(checkpoint)
    settings.require(**required)
    settings.choice("transformer_task", {task: task}, default_task)
    settings.require_empty("processing_kwargs")
    modalities = settings.get("modality_config")
    if modalities is not None and modalities != wanted:
        raise CheckpointError(
            f"{settings.path}: modality_config is {modalities!r}, want {wanted!r}"
        )
    if modalities is not None:  # the original reads this name only then
        settings.require(module_output_name="token_embeddings")
    return settings


def encoder_settings(checkpoint: Checkpoint) -> Config:
    """The settings of the encoder; empty without any.

    Raises CheckpointError for arguments that load another network or tokenizer than the files have.
    """
    for name in filter(checkpoint.has, ENCODER_SETTINGS):
        if fields := checkpoint.json_object(name):
            settings = Config(checkpoint.folder / name, fields)
            _check_arguments(settings)
            return settings
    return Config(checkpoint.folder / ENCODER_SETTINGS[0], {})


def _check_arguments(settings: Config) -> None:
    """Raise CheckpointError for an argument that may change vectors."""
    for name in ENCODER_ARGUMENTS:
        arguments: Any = settings.get(name, {})
        if not isinstance(arguments, dict):
            raise CheckpointError(f"{settings.path}: {name} is {arguments!r}, want an object")
        for argument in sorted(arguments.keys() - set(ARGUMENTS_WITHOUT_EFFECT)):
            raise CheckpointError(
                f"{settings.path}: {name}.{argument} is {arguments[argument]!r}, which is not "
                "supported; write it into the configuration of the model or of the tokenizer"
            )


def _pooling(config: Config) -> embedding_pb2.Pooling.ValueType:
    if "pooling_mode" in config:
        mode = config.get("pooling_mode")
        if isinstance(mode, list) and len(mode) > 1:
            raise CheckpointError(
                f"{config.path}: pooling_mode is {mode!r}: a concatenation is not supported; "
                f"supported: one of {', '.join(POOLING_NAMES)}"
            )
        if isinstance(mode, list) and len(mode) == 1:
            config = Config(config.path, {"pooling_mode": mode[0]})
        return config.choice("pooling_mode", POOLING_NAMES)  # type: ignore[no-any-return]
    modes = sorted(name for name in config if name.startswith("pooling_mode_") and config.get(name))
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise CheckpointError(
            f"{config.path}: {', '.join(modes) or 'no pooling mode'} is not supported; supported: "
            f"one of {', '.join(POOLINGS)}"
        )
    return POOLINGS[modes[0]]


def _dense(config: Config, d_input: int, vectors: str, default_activation: str) -> Dense:
    config.require(module_input_name=vectors, module_output_name=vectors, use_residual=False)
    if config.integer("in_features") != d_input:
        raise CheckpointError(
            f"{config.path}: in_features is {config.get('in_features')}, but the vectors before it "
            f"have {d_input} dimensions"
        )
    return Dense(
        d_output=config.integer("out_features"),
        has_bias=config.flag("bias", default=True),
        activation=config.choice("activation_function", DENSE_ACTIVATIONS, default_activation),
    )
