"""The arguments of the commands that train models."""

import argparse
import os
from pathlib import Path

from attendant_export.configuration import add_config
from attendant_export.data.augmentation import ALL, CHANGES
from attendant_export.data.tokenizer import BPE, KINDS
from attendant_export.graphs.attention import HEAD_DIM_MULTIPLE
from attendant_export.ranges import positive, share, share_below_one, whole
from attendant_export.stack_arguments import add_stacks
from attendant_export.train.device import PRECISIONS
from attendant_export.train.distillation import DISTILLATION_WEIGHT, NUM_HARD_NEGATIVES
from attendant_export.train.schedule import RANGES

TATOEBA_TRAIN = "tatoeba/tatoeba.en-de.train.tsv.gz"
TATOEBA_VALID = "tatoeba/tatoeba.en-de.valid.tsv.gz"
DEFAULT_TEXTS = (
    "mlm/en.digitalgov.txt.gz:1000000:0.02",
    "mlm/en.sgd-dialogues.txt.gz:1500000:0.005",
    "mlm/en.novels-1880-1930.txt.gz:300000",
    "mlm/en.novels-1839-1879.txt.gz:200000",
    "mlm/de.novels.txt.gz:1500000",
)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the base folder of data files."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("DATA_DIR"),
        help="base folder of relative data files; default: the environment variable DATA_DIR",
    )


def add_run(parser: argparse.ArgumentParser, valid: str | None = TATOEBA_VALID) -> None:
    """Add the arguments of every training of a network; ``valid`` is that of `add_run_folder`."""
    add_run_folder(parser, valid)
    parser.add_argument(
        "--init-from",
        type=Path,
        help="run folder or bundle, also an imported one, that gives the initial weights and the "
        "tokenizer and, for translation, the sizes, if all size options have their defaults; "
        "after a start from a bundle, the data card of an export must also list the data of the "
        "bundle",
    )
    add_precision(parser)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the type of the products of a training."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="type of the products while training: fp32, bf16, or auto, which is bf16 where that "
        "is much faster; weights and optimizer are fp32",
    )


def add_run_folder(parser: argparse.ArgumentParser, valid: str | None = TATOEBA_VALID) -> None:
    """Add the arguments of every training. ``valid`` is the default of ``--valid``.

    Without a default, the validation text is one of plain text and must be given.
    """
    add_config(parser)
    add_data_dir(parser)
    parser.add_argument(
        "--run-dir",
        type=Path,
        required=True,
        help="folder of the run, for checkpoints, tokenizer and curves; a run in it is resumed",
    )
    parser.add_argument("--device", default="auto", help="device to train on: auto, cpu or cuda")
    parser.add_argument(
        "--num-threads",
        type=whole(1),
        help="threads that share each operation on a CPU; default: one for each core",
    )
    parser.add_argument("--seed", type=RANGES["seed"], default=1, help="seed of all random choices")
    parser.add_argument(
        "--valid",
        default=valid,
        required=valid is None,
        help="validation text, of the form of --train"
        if valid is None
        else "validation pairs, source<TAB>target; for translation, with languages and controls as "
        "for --train",
    )
    parser.add_argument(
        "--skip-bad-lines",
        action="store_true",
        help="leave out lines of training text that nothing can be learned from, and count them, "
        "instead of refusing to train: those that are not UTF-8 and, in files of pairs, those "
        "without two texts or with too long ones",
    )
    parser.add_argument(
        "--keep-checkpoints",
        type=RANGES["keep_checkpoints"],
        default=0,
        help="number of latest validations whose weights are kept, for export --average",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write the curves for TensorBoard, to the folder tensorboard of the run (and of "
        "each of its phases); needs the extra tensorboard",
    )


def add_schedule(
    parser: argparse.ArgumentParser,
    prefix: str = "",
    text: str = "",
    *,
    learning_rate: float = 2e-3,
    validate_every_steps: int = 500,
) -> None:
    """Add the arguments of one `TrainingOptions`; each phase of train-bert has its own set."""

    def add(name: str, default: float | None, description: str) -> None:
        allowed = RANGES[name.replace("-", "_")]
        parser.add_argument(
            f"--{prefix}{name}", type=allowed, default=default, help=description + text
        )

    add("max-minutes", None, "limit of the training time in minutes")
    add("max-epochs", None, "limit of passes over the data")
    add("max-steps", None, "limit of optimizer steps")
    add(
        "validate-every-steps",
        validate_every_steps,
        "steps between validations; each writes a checkpoint",
    )
    add("patience", 10, "validations without improvement before an early stop")
    add("learning-rate", learning_rate, "peak learning rate")
    add("warmup-steps", 400, "steps until the peak learning rate")
    batches = "batches of a step, whose gradients are accumulated as those of one large batch"
    add("accumulate-steps", 1, batches)
    average = (
        "keep a moving average of the weights with this decay, such as 0.999, and validate and "
        "export it; 0: the weights of the last step"
    )
    add("average-decay", 0.0, average)


def add_sizes(
    parser: argparse.ArgumentParser, vocab_size: int, num_heads: int, head_dim_multiple: int = 1
) -> None:
    """Add the sizes that every network has."""
    parser.add_argument(
        "--vocab-size", type=whole(1), default=vocab_size, help="vocabulary size of a new tokenizer"
    )
    parser.add_argument("--d-model", type=whole(1), default=256, help="width of the hidden states")
    factor = f"{head_dim_multiple} times " if head_dim_multiple > 1 else ""
    parser.add_argument(
        "--num-heads",
        type=whole(1),
        default=num_heads,
        help=f"attention heads; --d-model must be a multiple of {factor}this number",
    )
    parser.add_argument(
        "--d-feed-forward", type=whole(1), default=1024, help="width of the feed-forward layers"
    )
    parser.add_argument("--dropout", type=share_below_one, default=0.1, help="dropout probability")


def _add_pairs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--train",
        action="append",
        metavar="FILE[:WEIGHT][;NAME=VALUE]...",
        help="training pairs, source<TAB>target: a file, plain or .gz, .xz or .bz2, or a folder of "
        "such files; may be repeated, all with weights or none; an epoch has as many pairs as all "
        "files, each file in the share of its weight; NAME is source-language, target-language or "
        "a control of your choice, such as formality, which requests can then choose; "
        f"default: {TATOEBA_TRAIN}",
    )
    parser.add_argument(
        "--temperature",
        type=positive,
        default=1.0,
        help="without weights, the share of each --train is proportional to its number of pairs to "
        "the power of 1/TEMPERATURE; above 1, small files come more often than large ones",
    )
    parser.add_argument(
        "--extra-pairs",
        action="append",
        default=[],
        metavar="FILE[:REPEATS][;NAME=VALUE]...",
        help="further training pairs, like --train; an epoch has each of them REPEATS times, 1 by "
        "default; may be repeated",
    )
    parser.add_argument(
        "--extra-valid",
        action="append",
        default=[],
        metavar="NAME=FILE[;NAME=VALUE]...",
        help="further validation pairs: loss, BLEU and chrF are measured on them as well, but "
        "those of --valid choose the best checkpoint; may be repeated",
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KIND",
        help="leave out training pairs: copies (source and target are the same), duplicates (of "
        "earlier pairs of the file), or languages:SOURCE-TARGET, such as languages:en-de (a side "
        "is in another language; needs the extra detection); may be repeated",
    )
    parser.add_argument(
        "--max-length-ratio",
        type=positive,
        help="leave out training pairs of which one side has more than this many tokens for each "
        "token of the other",
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        help="folder of encoded training pairs, which several runs may share; default: data in "
        "--run-dir",
    )


def add_train_translation(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train-translation``."""
    add_run(parser)
    _add_pairs(parser)
    parser.add_argument(
        "--swap", action="store_true", help="translate from the second column to the first"
    )
    parser.add_argument(
        "--new-tokenizer",
        action="store_true",
        help="with --init-from: train a new tokenizer instead, for example for other languages; "
        "tokens in both vocabularies keep their embeddings",
    )
    parser.add_argument(
        "--tokenizer",
        choices=KINDS,
        default=BPE,
        help="kind of a new tokenizer: bpe; bpe-bytes and unigram-bytes write characters that "
        "the vocabulary lacks, such as emoji, as bytes, so that none is unknown",
    )
    parser.add_argument(
        "--separate-vocabularies",
        action="store_true",
        help="give sources and targets vocabularies and embeddings of their own, each of "
        "--vocab-size tokens",
    )
    usual = ", ".join(f"{kind} {probability:g}" for kind, (_, probability) in CHANGES.items())
    parser.add_argument(
        "--augment",
        action="append",
        default=[],
        metavar="KIND[:PROBABILITY]",
        help="change training pairs at random, anew in each epoch, so that the model learns input "
        f"that the data lack: {ALL}, or one of these, with their usual probabilities: {usual}; "
        "may be repeated",
    )
    add_sizes(parser, vocab_size=8000, num_heads=8, head_dim_multiple=HEAD_DIM_MULTIPLE)
    add_stacks(parser)
    parser.add_argument("--post-norm", action="store_true", help="layer norms after the sublayers")
    add_schedule(parser)
    parser.add_argument(
        "--max-batch-tokens", type=whole(1), default=4096, help="padded tokens of a batch, per side"
    )
    parser.add_argument(
        "--label-smoothing",
        type=share,
        default=0.1,
        help="probability spread evenly over the vocabulary",
    )


def add_train_bert(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train-bert``."""
    add_run(parser)
    parser.add_argument(
        "--train", default=TATOEBA_TRAIN, help="training pairs, source<TAB>target, .gz or plain"
    )
    parser.add_argument(
        "--text",
        action="append",
        metavar="FILE[:MAX_CHARACTERS[:HELD_OUT]]",
        help="additional text for the masked language model, with an empty line between documents; "
        "MAX_CHARACTERS limits the sample drawn from it, HELD_OUT is the share of documents for "
        f"validation; may be repeated; default {' '.join(DEFAULT_TEXTS)}",
    )
    add_sizes(parser, vocab_size=16_000, num_heads=4)
    parser.add_argument("--num-layers", type=whole(1), default=6, help="layers of the encoder")
    parser.add_argument("--pre-norm", action="store_true", help="layer norms before the sublayers")
    parser.add_argument("--max-tokens", type=whole(3), default=64, help="limit of tokens of a text")
    for prefix, text in (
        ("embeddings-", " (phase of token embeddings only; skipped by default)"),
        ("mlm-", " (phase of masked language model only; skipped by default)"),
        ("contrastive-", " (phase of sentence embeddings and masked tokens)"),
    ):
        add_schedule(parser, prefix, text, learning_rate=1e-3)
    parser.add_argument(
        "--max-batch-tokens",
        type=whole(1),
        default=4096,
        help="padded tokens of a masked-text batch",
    )
    parser.add_argument("--mask-ratio", type=share, default=0.15, help="share of masked tokens")
    parser.add_argument(
        "--mlm-weight",
        type=positive,
        default=1.0,
        help="weight of the masked-language-model loss relative to the contrastive loss",
    )
    parser.add_argument(
        "--max-pairs", type=whole(2), default=128, help="pairs of a contrastive batch"
    )
    parser.add_argument(
        "--temperature", type=positive, default=0.05, help="temperature of the contrastive loss"
    )
    _add_teacher(parser)


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="BUNDLE_DIR",
        help="bundle of an embedding model, NAME/VERSION, whose vectors of the first side of the "
        "pairs are learned for both sides; needs an installed server",
    )
    parser.add_argument(
        "--teacher-text",
        action="append",
        default=[],
        metavar="FILE",
        help="further texts whose vectors are learned from --teacher, one on each line: a file, "
        "plain or .gz, .xz or .bz2, or a folder of such files; may be repeated",
    )
    parser.add_argument(
        "--distillation-weight",
        type=positive,
        help="weight of the distance to the vectors of --teacher relative to the contrastive "
        f"loss; default: {DISTILLATION_WEIGHT:g}",
    )
    parser.add_argument(
        "--hard-negatives",
        type=whole(0),
        metavar="N",
        help="let N pairs that --teacher finds similar to a pair share its batch; default: "
        f"{NUM_HARD_NEGATIVES}",
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        help="folder of the vectors of --teacher, which several runs may share; default: data in "
        "--run-dir",
    )
