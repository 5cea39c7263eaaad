"""The command that trains word vectors."""

import argparse

from attendant_manifest.part_rules import MAX_TOKENS

from attendant_export.commands.data_files import data_file
from attendant_export.commands.training import recorded, training_options
from attendant_export.data.cooccurrences import WINDOW
from attendant_export.data.skip_grams import SkipGramOptions
from attendant_export.runs.config import GLOVE
from attendant_export.train.recipes import word_vector_recipe
from attendant_export.train.word_vectors import (
    CooccurrenceOptions,
    Pairs,
    WordVectorData,
    train_word_vectors,
)


def run_train_word_vectors(args: argparse.Namespace) -> None:
    """Train word vectors, or resume their training."""
    data = WordVectorData(
        tuple(data_file(args, name, or_folder=True) for name in args.train),
        data_file(args, args.valid),
        are_documents=args.whole_files,
        skip_bad_lines=args.skip_bad_lines,
        max_words=args.max_words,
        min_count=args.min_count,
        lower_case=not args.keep_case,
    )
    pairs, options = _pairs(args), training_options(args)
    sif_coefficient = _sif_coefficient(args)
    recipe = word_vector_recipe(args.dimensions, data, pairs, options, sif_coefficient)
    with recorded(args, recipe, MAX_TOKENS) as processes:
        progress = train_word_vectors(
            data,
            pairs,
            options,
            args.run_dir,
            dimensions=args.dimensions,
            sif_coefficient=sif_coefficient,
            device=args.device,
            cache_dir=args.cache_dir,
            processes=processes,
            tensorboard=args.tensorboard,
        )
    if processes.is_first:
        metric = "correlation" if args.objective == GLOVE else "log-likelihood"
        print(f"{args.run_dir}: finished with best {metric} {progress.best:.4f}")


def _pairs(args: argparse.Namespace) -> Pairs:
    """The options of pairs. Raises ValueError for those of skip-gram with GloVe."""
    if args.objective == GLOVE:
        for name in ("negatives", "subsampling"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name}: is for --objective skip-gram")
        return CooccurrenceOptions(args.window or WINDOW, args.max_pairs)
    names = {"window": "window", "num_negatives": "negatives", "subsampling": "subsampling"}
    given = {field: getattr(args, name) for field, name in names.items()}
    chosen = {field: value for field, value in given.items() if value is not None}
    return SkipGramOptions(**chosen, max_pairs=args.max_pairs)


def _sif_coefficient(args: argparse.Namespace) -> float | None:
    if not args.equal_weights:
        return float(args.sif_coefficient)
    if args.sif_coefficient != args.parser.get_default("sif_coefficient"):
        raise ValueError("--sif-coefficient: is not for --equal-weights")
    return None
