"""OpenNMT-py, versions 1 to 3: Transformers with pre-norm and sinusoidal positions."""

from math import sqrt

import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    NORM_POSITION_PRE,
    POSITION_KIND_SINUSOIDAL_INTERLEAVED,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
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

from attendant_export.importers.checkpoint import CONFIG, Checkpoint, CheckpointError, Config
from attendant_export.importers.ctranslate2_folder import is_ctranslate2
from attendant_export.importers.ctranslate2_options import TokenOptions
from attendant_export.importers.ctranslate2_tokenizers import read_tokenizers
from attendant_export.importers.ctranslate2_vocabulary import Side, Vocabularies
from attendant_export.importers.head_width import with_supported_heads
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.marian_options import is_marian
from attendant_export.importers.opennmt_py_file import GENERATOR, OpenNMTFile, checkpoint_files
from attendant_export.importers.sentence_transformers import is_sentence_transformer
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.embeddings import sinusoids
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import TranslationTokens

LAYERS = {"encoder": "encoder.transformer", "decoder": "decoder.transformer_layers"}
EMBEDDINGS = "{}.embeddings.make_embedding.emb_luts.0"
POSITIONS = "{}.embeddings.make_embedding.pe.pe"
PAD, UNK, BOS, EOS = "<blank>", "<unk>", "<s>", "</s>"
POSITION_KINDS = {
    "SinusoidalInterleaved": POSITION_KIND_SINUSOIDAL_INTERLEAVED,
    "SinusoidalConcat": POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
}
ACTIVATIONS = {
    "relu": (ACTIVATION_RELU, False),
    "gelu": (ACTIVATION_GELU, False),
    "silu": (ACTIVATION_SILU, True),
    "gated-gelu": (ACTIVATION_GELU, True),
}
"""Activations by name, with whether the feed-forward network is gated."""
MAX_POSITION_DIFFERENCE = 1e-3
"""Difference of a sine that rounding in fp32 explains at the last of the compared positions."""


def is_opennmt_py(checkpoint: Checkpoint) -> bool:
    """Whether the user named a ``.pt`` file, or a folder has one and is of no other format."""
    if checkpoint.file:
        return True
    is_other = (
        checkpoint.has(CONFIG)
        or is_ctranslate2(checkpoint)
        or is_marian(checkpoint)
        or is_sentence_transformer(checkpoint)
    )
    return not is_other and bool(checkpoint_files(checkpoint))


def read_opennmt_py(checkpoint: Checkpoint, tokenizer: str | None = None) -> ImportedTranslator:
    """The model of a checkpoint with its tokenizers; raises CheckpointError.

    ``tokenizer`` is a choice of `read_tokenizers`; by default it is the folder's only one.
    """
    file = OpenNMTFile(checkpoint)
    _check_options(file.config)
    vocabularies = opennmt_vocabularies(file)
    options = TokenOptions(UNK, BOS, EOS, vocabularies.start, adds_bos=False, adds_eos=False)
    tokenizers = read_tokenizers(checkpoint, vocabularies, options, False, tokenizer)
    tokens = TranslationTokens(
        pad_id=tokenizers.source_tokens.pad_id,
        bos_id=vocabularies.target.ids[vocabularies.start],
        eos_id=tokenizers.target_tokens.eos_id,
    )
    return ImportedTranslator(
        family="opennmt-py",
        model=_model(file, _architecture(file, vocabularies), tokens),
        tokenizers=tokenizers,
        decoding=DecodingDefaults(start_token_id=tokens.bos_id),
        max_tokens=tokenizers.max_tokens,
    )


def opennmt_vocabularies(file: OpenNMTFile) -> Vocabularies:
    """The vocabularies of a checkpoint; raises CheckpointError if a special token is missing."""
    start = file.start_token()
    tokens = {name: file.tokens(name) for name in ("src", "tgt")}
    for name, wanted in (("src", [PAD, UNK]), ("tgt", [PAD, UNK, EOS, start])):
        if missing := [token for token in wanted if token not in tokens[name]]:
            raise CheckpointError(f"{file.path}: the vocabulary {name} lacks {', '.join(missing)}")
    # Sources end without EOS, which vocabularies before version 3 lack.
    source_eos = EOS if EOS in tokens["src"] else PAD
    source, target = Side(tokens["src"], UNK, source_eos, PAD), Side(tokens["tgt"], UNK, EOS, PAD)
    return Vocabularies(source, target, start, is_shared=source.tokens == target.tokens)


def _check_options(config: Config) -> None:
    """Raise CheckpointError for an option of another network, with its value."""
    config.require(
        model_task="seq2seq",
        model_type="text",
        encoder_type="transformer",
        decoder_type="transformer",
        position_encoding=True,
        max_relative_positions=0,
        relative_positions_buckets=0,
        multiquery=False,
        num_kv=0,
        sliding_window=0,
        num_experts=0,
        layer_norm="standard",
        parallel_residual=False,
        shared_layer_norm=False,
        copy_attn=False,
        generator_function="softmax",
        lora_embedding=False,
    )
    config.choice("self_attn_type", dict.fromkeys(("scaled-dot", "scaled-dot-flash")), "scaled-dot")
    for name in ("lora_layers", "quant_layers", "src_subword_vocab", "tgt_subword_vocab"):
        if value := config.get(name):
            raise CheckpointError(f"{config.path}: {name} is {value!r}, which is not supported")


def _architecture(file: OpenNMTFile, vocabularies: Vocabularies) -> Architecture:
    width = _width(file.config)
    tables = [f"{EMBEDDINGS.format(stack)}.weight" for stack in LAYERS]
    return Architecture(
        d_model=width,
        source_embeddings=_embeddings(file, "encoder", len(vocabularies.source.tokens), width),
        target_embeddings=_embeddings(file, "decoder", len(vocabularies.target.tokens), width),
        shares_embeddings=vocabularies.is_shared and _are_same(file, *tables),
        encoder=_stack(file, "encoder", width),
        decoder=_stack(file, "decoder", width),
        head=Head(
            is_tied=_are_same(file, tables[1], f"{GENERATOR}weight"),
            has_bias=f"{GENERATOR}bias" in file.tensors,
        ),
    )


def _width(config: Config) -> int:
    """The width, which versions before 3 state as that of a recurrent network."""
    names = ("hidden_size", "enc_hid_size"), ("rnn_size", "enc_rnn_size")
    present = [pair for pair in names if any(name in config for name in pair)]
    return _either(config, *(present or names)[0])


def _either(config: Config, whole: str, own: str) -> int:
    """An option for the whole model, if it is positive, else that of a part."""
    whole_value = config.get(whole, -1)
    is_set = isinstance(whole_value, int) and whole_value > 0
    return config.integer(whole if is_set else own)


def _are_same(file: OpenNMTFile, *names: str) -> bool:
    first, second = (file.tensors.get(name) for name in names)
    return first is not None and second is not None and torch.equal(first, second)


def _embeddings(file: OpenNMTFile, stack: str, vocab_size: int, width: int) -> Embeddings:
    kind = file.config.choice("position_encoding_type", POSITION_KINDS, "SinusoidalInterleaved")
    positions, name = Positions(kind=kind), POSITIONS.format(stack)
    if name in file.tensors:
        stored = file.read(name).squeeze(1)[:1024]
        computed = sinusoids(positions, len(stored), width)
        if stored.shape != computed.shape or not torch.allclose(
            stored, computed, rtol=0, atol=MAX_POSITION_DIFFERENCE
        ):
            raise CheckpointError(
                f"{file.path}: {name} has other positions than those of position_encoding_type"
            )
    return Embeddings(vocab_size=vocab_size, scale=sqrt(width), positions=positions)


def _stack(file: OpenNMTFile, stack: str, width: int) -> Stack:
    config, layers = file.config, LAYERS[stack]
    num_heads = config.integer("heads", 8)
    if width % num_heads:
        raise CheckpointError(
            f"{config.path}: heads is {num_heads}, which does not divide the width {width}"
        )
    attention = Attention(
        num_heads=num_heads,
        head_dim=width // num_heads,
        has_bias=f"{layers}.0.self_attn.linear_query.bias" in file.tensors,
    )
    activation, is_gated = config.choice("pos_ffn_activation_fn", ACTIVATIONS, "relu")
    group = LayerGroup(
        num_layers=_either(config, "layers", f"{stack[:3]}_layers"),
        self_attention=attention,
        feed_forward=FeedForward(
            d_feed_forward=config.integer("transformer_ff", 2048),
            activation=activation,
            is_gated=is_gated,
            has_bias=f"{layers}.0.feed_forward.w_1.bias" in file.tensors,
        ),
    )
    if stack == "decoder":
        group.cross_attention.CopyFrom(attention)
        group.self_attention.is_causal = True
    return Stack(
        groups=[group],
        norm_position=NORM_POSITION_PRE,
        norm_epsilon=config.number("norm_eps", 1e-6),
        has_final_norm=True,
    )


def _model(
    file: OpenNMTFile, architecture: Architecture, tokens: TranslationTokens
) -> EncoderDecoder:
    try:
        with torch.device("meta"):  # no memory for sizes that the weights may not have
            model = EncoderDecoder(architecture, tokens).eval()
    except ValueError as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    _weight_table(architecture).load(model, file)
    return with_supported_heads(model)


def _weight_table(architecture: Architecture) -> WeightTable:
    names: dict[str, str | list[str]] = {
        "embedding": EMBEDDINGS.format("encoder"),
        "head.projection": GENERATOR.removesuffix("."),
    }
    ignored = [r".*\.pe\.pe"]
    if architecture.shares_embeddings:
        ignored.append(f"{EMBEDDINGS.format('decoder')}.weight")
    else:
        names["target_embedding"] = EMBEDDINGS.format("decoder")
    if architecture.head.is_tied:
        ignored.append(f"{GENERATOR}weight")
    for stack, layers in LAYERS.items():
        ours, theirs = f"{stack}.{{layer}}", f"{layers}.{{layer}}"
        inputs = ["w_1", "w_3"] if architecture.encoder.groups[0].feed_forward.is_gated else ["w_1"]
        own_norm = "layer_norm" if stack == "encoder" else "layer_norm_1"
        names |= {
            f"{stack}_norm": f"{stack}.layer_norm",
            f"{ours}.self_attention_residual.norm": f"{theirs}.{own_norm}",
            f"{ours}.cross_attention_residual.norm": f"{theirs}.layer_norm_2",
            f"{ours}.feed_forward_residual.norm": f"{theirs}.feed_forward.layer_norm",
            f"{ours}.feed_forward.0": [f"{theirs}.feed_forward.{each}" for each in inputs],
            f"{ours}.feed_forward.2": f"{theirs}.feed_forward.w_2",
        }
        for part, name in (("self_attention", "self_attn"), ("cross_attention", "context_attn")):
            linear = f"{theirs}.{name}.linear_"
            names[f"{ours}.{part}.query_key_value"] = [
                f"{linear}query",
                f"{linear}keys",
                f"{linear}values",
            ]
            names[f"{ours}.{part}.output"] = f"{theirs}.{name}.final_linear"
    whole = {"head.bias": f"{GENERATOR}bias"}
    return WeightTable(names=names, whole_names=whole, ignored=ignored)
