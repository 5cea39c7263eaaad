"""CTranslate2 folders with a Transformer of encoder and decoder.

A folder has ``model.bin``, vocabularies and, for newer versions, ``config.json``. The formulas are
those of CTranslate2's ``src/layers``.
"""

from collections.abc import Mapping
from itertools import groupby
from math import sqrt

import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_LEARNED,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
    Activation,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    Head,
    LayerGroup,
    Positions,
    Stack,
)
from attendant.v1.bundle_pb2 import DecodingDefaults

from attendant_export.importers.checkpoint import CONFIG, Checkpoint, CheckpointError
from attendant_export.importers.ctranslate2_file import MODEL_FILE, ModelFile, Scalar
from attendant_export.importers.ctranslate2_options import (
    HEADS_OF_SPECIFICATIONS,
    ModelOptions,
    TokenOptions,
    layer_norm_epsilon,
    read_token_options,
)
from attendant_export.importers.ctranslate2_tokenizers import read_tokenizers
from attendant_export.importers.ctranslate2_vocabulary import (
    Vocabularies,
    has_vocabulary,
    read_vocabularies,
)
from attendant_export.importers.ctranslate2_weights import (
    EMBEDDINGS,
    POSITIONS,
    PROJECTION,
    PROJECTION_BIAS,
    StoredWeights,
    weight_table,
)
from attendant_export.importers.head_width import with_supported_heads
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import TranslationTokens

SPECIFICATIONS = ("TransformerSpec", *HEADS_OF_SPECIFICATIONS)
NO_TEXT_MODELS = ("WhisperSpec", "Wav2Vec2Spec", "Wav2Vec2BertSpec")
MAX_REVISION = 7
STARTS_FROM_ZERO = "decoder/start_from_zero_embedding"
ACTIVATIONS: Mapping[Scalar, Activation.ValueType] = {
    0: ACTIVATION_RELU,
    1: ACTIVATION_GELU_TANH,
    2: ACTIVATION_SILU,
    3: ACTIVATION_GELU,
}
"""Activations by their number in ``include/ctranslate2/ops/activation.h``."""


def is_ctranslate2(checkpoint: Checkpoint) -> bool:
    """Whether a folder is one of CTranslate2, whose configuration names no family.

    Folders of early versions have no configuration, but vocabularies that those of Marian lack.
    """
    if checkpoint.has(CONFIG):
        return "model_type" not in checkpoint.config and checkpoint.has(MODEL_FILE)
    return checkpoint.has(MODEL_FILE) and has_vocabulary(checkpoint)


def read_folder_tokens(checkpoint: Checkpoint) -> tuple[Vocabularies, TokenOptions]:
    """The vocabularies of a folder and its options on tokens; raises CheckpointError."""
    file = ModelFile(checkpoint.path(MODEL_FILE))
    _check_specification(file)
    return _read_folder_tokens(checkpoint, ModelOptions(file))


def _read_folder_tokens(
    checkpoint: Checkpoint, options: ModelOptions
) -> tuple[Vocabularies, TokenOptions]:
    token_options = read_token_options(checkpoint, options)
    starts_from_zero = options.flag(STARTS_FROM_ZERO, False)
    return read_vocabularies(checkpoint, token_options, starts_from_zero), token_options


def read_ctranslate2(checkpoint: Checkpoint, tokenizer: str | None = None) -> ImportedTranslator:
    """The model of a folder with its tokenizers; raises CheckpointError.

    ``tokenizer`` is a choice of `read_tokenizers`; by default it is the folder's only one.
    """
    file = ModelFile(checkpoint.path(MODEL_FILE))
    _check_specification(file)
    weights, options = StoredWeights(file), ModelOptions(file)
    vocabularies, token_options = _read_folder_tokens(checkpoint, options)
    _check_sizes(file, weights, vocabularies)
    # Models that start from zeros come from Marian, whose sources end with EOS.
    ends = token_options.adds_eos or options.flag(STARTS_FROM_ZERO, False)
    tokenizers = read_tokenizers(checkpoint, vocabularies, token_options, ends, tokenizer)
    _add_rows(weights, vocabularies)
    architecture = _architecture(checkpoint, weights, options, vocabularies)
    options.check_all_read()
    tokens = TranslationTokens(
        pad_id=tokenizers.source_tokens.pad_id,
        bos_id=vocabularies.target.ids[vocabularies.start],
        eos_id=tokenizers.target_tokens.eos_id,
    )
    return ImportedTranslator(
        family="ctranslate2",
        model=_model(file, architecture, tokens, weights),
        tokenizers=tokenizers,
        decoding=DecodingDefaults(start_token_id=tokens.bos_id),
        max_tokens=tokenizers.max_tokens,
    )


def _check_specification(file: ModelFile) -> None:
    if file.specification not in SPECIFICATIONS:
        reason = " of speech, not a text model" if file.specification in NO_TEXT_MODELS else ""
        raise CheckpointError(
            f"{file.path}: the specification is {file.specification}{reason}, which is not "
            f"supported; supported: {', '.join(filter(None, SPECIFICATIONS))}"
        )
    if file.revision > MAX_REVISION:
        raise CheckpointError(
            f"{file.path}: the revision of the specification is {file.revision}, which is not "
            f"supported; supported: 1 to {MAX_REVISION}"
        )


def _check_sizes(file: ModelFile, weights: StoredWeights, vocabularies: Vocabularies) -> None:
    for stack, side in (("encoder", vocabularies.source), ("decoder", vocabularies.target)):
        num_tokens = len(side.tokens) - side.has_added
        rows = weights.shape(EMBEDDINGS[stack])[0]
        if rows != num_tokens:
            raise CheckpointError(
                f"{file.path}: {EMBEDDINGS[stack]} has {rows} rows, but the vocabulary has "
                f"{num_tokens} tokens"
            )


def _add_rows(weights: StoredWeights, vocabularies: Vocabularies) -> None:
    """Add the weights of additional tokens."""
    if vocabularies.source.has_added:
        weights.add_row(EMBEDDINGS["encoder"])
    if vocabularies.target.has_added:
        weights.add_row(EMBEDDINGS["decoder"])
        weights.add_row(PROJECTION)
        weights.add_bias_of_added_token()


def _model(
    file: ModelFile, architecture: Architecture, tokens: TranslationTokens, weights: StoredWeights
) -> EncoderDecoder:
    shared, tied = architecture.shares_embeddings, architecture.head.is_tied
    ignored = [EMBEDDINGS["decoder"]] if shared else []
    table = weight_table(shared, ignored + ([PROJECTION] if tied else []))
    try:
        with torch.device("meta"):  # no memory for sizes that the weights may not have
            model = EncoderDecoder(architecture, tokens).eval()
    except ValueError as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    table.load(model, weights)
    return with_supported_heads(model)


def _architecture(
    checkpoint: Checkpoint,
    weights: StoredWeights,
    options: ModelOptions,
    vocabularies: Vocabularies,
) -> Architecture:
    tables = list(EMBEDDINGS.values())
    scale = options.get("decoder/scale_outputs", 1.0)
    options.require("decoder/final_logit_softcapping", "decoder/alibi", value=0)
    options.ignore("decoder/alibi_use_positive_positions", "decoder/scale_alibi")
    options.ignore("decoder/alignment_layer", "decoder/alignment_heads")
    options.ignore("encoder/embeddings_merge", "embeddings_merge")  # There is one embedding.
    epsilon = layer_norm_epsilon(checkpoint)
    return Architecture(
        d_model=weights.shape(tables[0])[1],
        source_embeddings=_embeddings(weights, options, "encoder", len(vocabularies.source.tokens)),
        target_embeddings=_embeddings(weights, options, "decoder", len(vocabularies.target.tokens)),
        shares_embeddings=vocabularies.is_shared and weights.are_same(*tables),
        encoder=_stack(weights, options, "encoder", epsilon),
        decoder=_stack(weights, options, "decoder", epsilon),
        head=Head(
            is_tied=weights.are_same(EMBEDDINGS["decoder"], PROJECTION),
            has_bias=PROJECTION_BIAS in weights.shapes,
            scale=0 if scale == 1 else scale,
        ),
    )


def _embeddings(
    weights: StoredWeights, options: ModelOptions, stack: str, vocab_size: int
) -> Embeddings:
    width = weights.shape(EMBEDDINGS[stack])[1]
    early = options.get(f"{stack}/embeddings/multiply_by_sqrt_depth", 1)
    stated = options.get(f"{stack}/scale_embeddings", early)
    # The flag 1 means the square root of the width; the number 1.0 means no factor.
    factor = sqrt(width) if type(stated) is int and stated else float(stated)
    positions = Positions(kind=POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR, offset=1)
    name = POSITIONS.format(stack)
    if name in weights.shapes:
        rows = weights.shape(name)[0]
        positions = Positions(kind=POSITION_KIND_LEARNED, num_positions=rows)
    return Embeddings(
        vocab_size=vocab_size,
        scale=0 if factor in (0, 1) else factor,
        positions=positions,
        has_norm=f"{stack}/layernorm_embedding/gamma" in weights.shapes,
    )


def _stack(weights: StoredWeights, options: ModelOptions, stack: str, epsilon: float) -> Stack:
    is_pre_norm = options.flag(f"{stack}/pre_norm", True)
    num_layers = 0
    while f"{stack}/layer_{num_layers}/ffn/linear_0/weight" in weights.shapes:
        num_layers += 1
    layers = [
        _layer(weights, options, stack, f"{stack}/layer_{number}") for number in range(num_layers)
    ]
    groups = []
    for _, same in groupby(layers, key=lambda layer: layer.SerializeToString(deterministic=True)):
        first, *rest = same
        first.num_layers += len(rest)
        groups.append(first)
    return Stack(
        groups=groups,
        norm_position=NORM_POSITION_PRE if is_pre_norm else NORM_POSITION_POST,
        norm_epsilon=epsilon,
        has_final_norm=f"{stack}/layer_norm/gamma" in weights.shapes,
    )


def _layer(weights: StoredWeights, options: ModelOptions, stack: str, name: str) -> LayerGroup:
    options.require(f"{name}/layer_scalar", value=1)
    options.require(f"{stack}/sliding_window", f"{stack}/multi_query_attention", value=0)
    first = f"{name}/ffn/linear_0"
    layer = LayerGroup(
        num_layers=1,
        self_attention=_attention(weights, options, stack, f"{name}/self_attention"),
        feed_forward=FeedForward(
            d_feed_forward=weights.shape(f"{first}/weight")[0],
            activation=options.choice(f"{stack}/activation", ACTIVATIONS, 0),
            has_bias=f"{first}/bias" in weights.shapes,
        ),
    )
    if stack == "decoder":
        attention = _attention(weights, options, stack, f"{name}/attention", is_cross=True)
        layer.cross_attention.CopyFrom(attention)
        layer.self_attention.is_causal = True
    return layer


def _attention(
    weights: StoredWeights, options: ModelOptions, stack: str, name: str, is_cross: bool = False
) -> Attention:
    num_heads = options.integer(f"{stack}/num_heads", 8)
    output = f"{name}/linear_{2 if is_cross else 1}/weight"
    width = weights.shape(output)[0]
    if width % num_heads and f"{name}/head_dim" not in options:
        raise CheckpointError(
            f"{options.file.path}: the width {width} of {output} is not a multiple of "
            f"{stack}/num_heads {num_heads}"
        )
    options.require(f"{name}/sliding_window", value=0)
    options.require(f"{name}/multi_query", value=0)
    options.require(f"{name}/num_heads_kv", value=num_heads)
    return Attention(
        num_heads=num_heads,
        head_dim=options.integer(f"{name}/head_dim", width // num_heads),
        has_bias=f"{name}/linear_0/bias" in weights.shapes,
        scale=options.get(f"{name}/queries_scale", 0.0),
    )
