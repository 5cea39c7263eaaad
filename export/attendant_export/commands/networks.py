"""The networks that trainings make from their arguments."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from attendant.v1.architecture_pb2 import AlignmentAttention, Architecture

from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.models.convolutional_shapes import (
    CONVOLUTIONS,
    add_experts,
    make_decoder_convolutional,
    make_encoder_convolutional,
)
from attendant_export.models.shapes import (
    ALIGNMENT_FUNCTIONS,
    CELLS,
    make_decoder_recurrent,
    make_encoder_recurrent,
    transformer,
)
from attendant_export.stack_arguments import (
    ATTENTION,
    DEFAULT_ALIGNMENTS,
    DEFAULT_SELECTED_EXPERTS,
    NO_ALIGNMENT,
    NUM_LAYERS,
    check_stacks,
)
from attendant_export.train.start import start_architecture

SIZES = (
    "d_model",
    "num_heads",
    "d_feed_forward",
    "encoder",
    "decoder",
    "num_encoder_layers",
    "num_decoder_layers",
    "alignment",
    "alignment_window",
    "predictive_window",
    "num_experts",
    "selected_experts",
    "post_norm",
    "separate_vocabularies",
)
"""The options that describe the network of a translation model."""


@contextmanager
def naming_widths(args: argparse.Namespace) -> Iterator[None]:
    """Add the options that determine the width of heads to the error for a bad width."""
    try:
        yield
    except ValueError as error:
        widths = f"--d-model {args.d_model}, --num-heads {args.num_heads}"
        raise ValueError(f"{widths}: {error}") from error


def translation_network(args: argparse.Namespace) -> Architecture:
    """The network of the `SIZES`, or of the initial weights if all of these have their defaults.

    Raises ValueError for options that do not fit each other.
    """
    have_defaults = all(getattr(args, name) == args.parser.get_default(name) for name in SIZES)
    if args.init_from is not None and have_defaults:
        return start_architecture(args.init_from)
    check_stacks(args)
    has_attention = ATTENTION in (args.encoder, args.decoder)
    with naming_widths(args):
        architecture = transformer(
            vocab_size=args.vocab_size,
            d_model=args.d_model,
            num_heads=args.num_heads if has_attention else 1,
            d_feed_forward=args.d_feed_forward,
            num_encoder_layers=_num_layers(args, "encoder"),
            num_decoder_layers=_num_layers(args, "decoder"),
            norm_first=not args.post_norm,
            shares_embeddings=not args.separate_vocabularies,
        )
        if args.encoder in CELLS:
            make_encoder_recurrent(architecture, CELLS[args.encoder])
        if args.encoder in CONVOLUTIONS:
            make_encoder_convolutional(architecture, args.encoder)
        if args.decoder in CELLS:
            make_decoder_recurrent(architecture, CELLS[args.decoder], _alignment(args))
        if args.decoder in CONVOLUTIONS:
            alignment = _alignment(args) or AlignmentAttention()
            make_decoder_convolutional(architecture, args.decoder, alignment)
        if args.num_experts:
            selected = args.selected_experts or min(DEFAULT_SELECTED_EXPERTS, args.num_experts - 1)
            add_experts(architecture, args.num_experts, selected, args.d_feed_forward)
        check_decoder_heads(architecture)
    return architecture


def _num_layers(args: argparse.Namespace, stack: str) -> int:
    return getattr(args, f"num_{stack}_layers") or NUM_LAYERS[stack][getattr(args, stack)]


def _alignment(args: argparse.Namespace) -> AlignmentAttention | None:
    function = args.alignment or DEFAULT_ALIGNMENTS.get(args.decoder, NO_ALIGNMENT)
    if function == NO_ALIGNMENT:
        return None
    part = AlignmentAttention(function=ALIGNMENT_FUNCTIONS[function])
    if args.alignment_window:
        part.window.half_width = args.alignment_window
        part.window.is_predictive = args.predictive_window
    return part
