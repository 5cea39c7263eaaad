"""The arguments that choose the stacks of networks of ``train-translation``."""

import argparse

from attendant_export.models.alignment_attention import MAX_HALF_WIDTH
from attendant_export.models.convolutional_shapes import BYTENET, CONVOLUTIONS, SEPARABLE
from attendant_export.models.mixture_of_experts import MAX_EXPERTS
from attendant_export.models.shapes import ALIGNMENT_FUNCTIONS, CELLS
from attendant_export.ranges import whole

ATTENTION, NO_ALIGNMENT = "attention", "none"
DEFAULT_ALIGNMENTS = dict.fromkeys(CELLS, "general") | dict.fromkeys(SEPARABLE, "scaled-dot")
"""By kinds of decoders that attend to the source by an alignment function."""
DEFAULT_SELECTED_EXPERTS = 2
NUM_LAYERS = {
    "encoder": {ATTENTION: 6, "lstm": 2, "gru": 2, "bytenet": 10, "slicenet": 6, "xception": 6},
    "decoder": {ATTENTION: 2, "lstm": 2, "gru": 2, "bytenet": 10, "slicenet": 4, "xception": 4},
}
"""Default numbers of layers, by stack and kind."""


def add_stacks(parser: argparse.ArgumentParser) -> None:
    """Add the kinds and the numbers of layers of encoder and decoder, alignment and experts."""
    reads = {"encoder": ", which read from both sides", "decoder": ""}
    for stack, numbers in NUM_LAYERS.items():
        parser.add_argument(
            f"--{stack}",
            choices=(ATTENTION, *CELLS, *CONVOLUTIONS),
            default=ATTENTION,
            help=f"what mixes the tokens of the {stack}: self-attention in Transformer layers; "
            f"recurrent layers{reads[stack]}, without norms and feed-forward networks; dilated "
            "convolutions (bytenet); or depthwise separable ones (slicenet, xception)",
        )
        defaults = ", ".join(f"{kind} {number}" for kind, number in numbers.items())
        parser.add_argument(
            f"--num-{stack}-layers",
            type=whole(1),
            help=f"layers of the {stack}; default: {defaults}",
        )
    _add_alignment(parser)
    parser.add_argument(
        "--num-experts",
        type=whole(2, MAX_EXPERTS),
        metavar="N",
        help="mixture of N experts, each a feed-forward network, in place of the feed-forward "
        "network of each Transformer layer, and in every second convolutional layer",
    )
    parser.add_argument(
        "--selected-experts",
        type=whole(1, MAX_EXPERTS - 1),
        metavar="K",
        help="with --num-experts: experts that compute each token; default: "
        f"{DEFAULT_SELECTED_EXPERTS}, or 1 of 2",
    )


def _add_alignment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--alignment",
        choices=(*ALIGNMENT_FUNCTIONS, NO_ALIGNMENT),
        help="how a recurrent or separable decoder scores the encoder's outputs, in its last layer "
        f"or in every second one; with {NO_ALIGNMENT}, a recurrent decoder knows the encoder's "
        "final state alone; default: general, or scaled-dot in a separable decoder",
    )
    parser.add_argument(
        "--alignment-window",
        type=whole(1, MAX_HALF_WIDTH),
        metavar="N",
        help="local attention by --alignment, to N source tokens on each side of the target "
        "token's own position",
    )
    parser.add_argument(
        "--predictive-window",
        action="store_true",
        help="with --alignment-window: predict the middle of the window, and prefer tokens near it",
    )


def check_stacks(args: argparse.Namespace) -> None:
    """Raise ValueError for options that the chosen stacks have no use for."""
    if args.decoder not in DEFAULT_ALIGNMENTS:
        for name in ("alignment", "alignment_window", "predictive_window"):
            if getattr(args, name):
                kinds = ", ".join(DEFAULT_ALIGNMENTS)
                raise ValueError(f"--{name.replace('_', '-')}: is for a --decoder of {kinds}")
    if args.alignment == NO_ALIGNMENT and args.alignment_window:
        raise ValueError(f"--alignment-window: needs another --alignment than {NO_ALIGNMENT}")
    if args.alignment == NO_ALIGNMENT and args.decoder in SEPARABLE:
        raise ValueError(f"--alignment: {NO_ALIGNMENT} is for a recurrent decoder")
    if args.predictive_window and not args.alignment_window:
        raise ValueError("--predictive-window: needs --alignment-window")
    has_norms = not {args.encoder, args.decoder} <= set(CELLS)
    if args.post_norm and not has_norms:
        raise ValueError("--post-norm: is for an encoder or a decoder that is not recurrent")
    if BYTENET in (args.encoder, args.decoder) and args.d_model % 2:
        raise ValueError(f"--d-model: must be even for {BYTENET}, not {args.d_model}")
    if args.num_experts and not has_norms:
        raise ValueError("--num-experts: is for an encoder or a decoder that is not recurrent")
    if args.selected_experts and not args.num_experts:
        raise ValueError("--selected-experts: needs --num-experts")
    if args.num_experts and (args.selected_experts or 0) >= args.num_experts:
        raise ValueError("--selected-experts: must be fewer than --num-experts")
