"""The command that trains classification heads with their encoders."""

import argparse

from attendant_export.commands.data_files import data_file
from attendant_export.commands.training import recorded, training_options
from attendant_export.data.labelled_texts import SIMILARITY
from attendant_export.train.classifier import ClassifierData, train_classifier
from attendant_export.train.recipes import classifier_recipe


def run_train_classifier(args: argparse.Namespace) -> None:
    """Train a classification head and its encoder, or resume the training."""
    data = ClassifierData(
        data_file(args, args.train),
        data_file(args, args.valid),
        args.task,
        args.max_tokens,
        args.max_batch_tokens,
        args.skip_bad_lines,
    )
    options = training_options(args)
    recipe = classifier_recipe(args.pooling, args.dropout, data, options)
    with recorded(args, recipe) as processes:
        progress = train_classifier(
            data,
            options,
            args.run_dir,
            args.init_from,
            pooling=args.pooling,
            dropout=args.dropout,
            device=args.device,
            precision=args.precision,
            processes=processes,
            tensorboard=args.tensorboard,
        )
    if processes.is_first:
        metric = "rank correlation" if args.task == SIMILARITY else "accuracy"
        print(f"{args.run_dir}: finished with best {metric} {progress.best:.4f}")
