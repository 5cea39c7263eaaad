"""The arguments that choose recurrent stacks and alignment functions for ``train-translation``."""

import argparse

from attendant_export.models.alignment_attention import MAX_HALF_WIDTH
from attendant_export.models.shapes import ALIGNMENT_FUNCTIONS, CELLS
from attendant_export.ranges import whole

ATTENTION, NO_ALIGNMENT = "attention", "none"
DEFAULT_ALIGNMENT = "general"
NUM_LAYERS = {"encoder": 6, "decoder": 2}
"""Default numbers of layers of stacks with attention."""
NUM_RECURRENT_LAYERS = 2
"""The same of recurrent stacks."""


def add_stacks(parser: argparse.ArgumentParser) -> None:
    """Add the kinds and the numbers of layers of encoder and decoder, and the alignment."""
    kinds = (ATTENTION, *CELLS)
    reads = {"encoder": ", which read from both sides", "decoder": ""}
    for stack, number in NUM_LAYERS.items():
        parser.add_argument(
            f"--{stack}",
            choices=kinds,
            default=ATTENTION,
            help=f"what mixes the tokens of the {stack}: self-attention in Transformer layers, or "
            f"recurrent layers{reads[stack]}, without norms and feed-forward networks",
        )
        parser.add_argument(
            f"--num-{stack}-layers",
            type=whole(1),
            help=f"layers of the {stack}; default: {number}, or {NUM_RECURRENT_LAYERS} if they are "
            "recurrent",
        )
    parser.add_argument(
        "--alignment",
        choices=(*ALIGNMENT_FUNCTIONS, NO_ALIGNMENT),
        help="how the last layer of a recurrent decoder scores the encoder's outputs; with "
        f"{NO_ALIGNMENT}, the decoder knows the encoder's final state alone; default: "
        f"{DEFAULT_ALIGNMENT}",
    )
    parser.add_argument(
        "--alignment-window",
        type=whole(1, MAX_HALF_WIDTH),
        metavar="N",
        help="local attention of a recurrent decoder, to N source tokens on each side of the "
        "target token's own position",
    )
    parser.add_argument(
        "--predictive-window",
        action="store_true",
        help="with --alignment-window: predict the middle of the window, and prefer tokens near it",
    )


def check_stacks(args: argparse.Namespace) -> None:
    """Raise ValueError for options that the chosen stacks have no use for."""
    if args.decoder == ATTENTION:
        for name in ("alignment", "alignment_window", "predictive_window"):
            if getattr(args, name):
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag}: is for a recurrent decoder, such as --decoder lstm")
        if args.encoder == ATTENTION:
            return
    if args.alignment == NO_ALIGNMENT and args.alignment_window:
        raise ValueError(f"--alignment-window: needs another --alignment than {NO_ALIGNMENT}")
    if args.predictive_window and not args.alignment_window:
        raise ValueError("--predictive-window: needs --alignment-window")
    if ATTENTION not in (args.encoder, args.decoder) and args.post_norm:
        raise ValueError("--post-norm: is for an encoder or a decoder with attention")
