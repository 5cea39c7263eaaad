"""The command that trains language models."""

import argparse

from attendant.v1.architecture_pb2 import Architecture

from attendant_export.commands.data_files import data_file
from attendant_export.commands.networks import naming_widths
from attendant_export.commands.training import recorded, training_options
from attendant_export.data.language_text import LanguageData
from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.models.shapes import language_model
from attendant_export.train.language_model import train_language_model
from attendant_export.train.recipes import language_model_recipe
from attendant_export.train.start import start_architecture

SIZES = ("d_model", "num_heads", "num_key_value_heads", "d_feed_forward", "num_layers")
"""The options that describe the network."""


def run_train_language_model(args: argparse.Namespace) -> None:
    """Train a language model, or resume its training."""
    architecture = _network(args)
    data = LanguageData(
        tuple(data_file(args, name, or_folder=True) for name in args.train),
        data_file(args, args.valid),
        are_documents=args.whole_files,
        vocab_size=args.vocab_size,
        max_tokens=args.max_tokens,
        max_batch_tokens=args.max_batch_tokens,
        skip_bad_lines=args.skip_bad_lines,
    )
    options = training_options(args)
    recipe = language_model_recipe(architecture, args.dropout, data, options)
    with recorded(args, recipe, args.max_tokens) as processes:
        progress = train_language_model(
            architecture,
            data,
            options,
            args.run_dir,
            dropout=args.dropout,
            device=args.device,
            precision=args.precision,
            init_from=args.init_from,
            cache_dir=args.cache_dir,
            processes=processes,
            tensorboard=args.tensorboard,
        )
    if processes.is_first:
        print(f"{args.run_dir}: finished with best log-probability {progress.best:.4f} of a token")


def _network(args: argparse.Namespace) -> Architecture:
    """The network of the `SIZES`, or of the initial weights if all of these have their defaults."""
    have_defaults = all(getattr(args, name) == args.parser.get_default(name) for name in SIZES)
    if args.init_from is not None and have_defaults:
        return start_architecture(args.init_from)
    with naming_widths(args):
        architecture = language_model(
            vocab_size=args.vocab_size,
            d_model=args.d_model,
            num_heads=args.num_heads,
            num_key_value_heads=args.num_key_value_heads or 0,
            d_feed_forward=args.d_feed_forward,
            num_layers=args.num_layers,
        )
        check_decoder_heads(architecture)
    return architecture
