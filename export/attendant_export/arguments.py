"""The arguments of ``attendant-export``. Knows names, defaults and help, and does no work."""

import argparse
import os
from pathlib import Path

from attendant_export import __version__
from attendant_export.graphs.writer import PRECISIONS

TATOEBA_TRAIN = "tatoeba/tatoeba.en-de.train.tsv.gz"
TATOEBA_VALID = "tatoeba/tatoeba.en-de.valid.tsv.gz"
DEFAULT_TEXTS = (
    "mlm/en.digitalgov.txt.gz:1000000:0.02",
    "mlm/en.sgd-dialogues.txt.gz:1500000:0.005",
    "mlm/en.novels-1880-1930.txt.gz:300000",
    "mlm/en.novels-1839-1879.txt.gz:200000",
    "mlm/de.novels.txt.gz:1500000",
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; the chosen command is ``command``."""
    parser = argparse.ArgumentParser(
        prog="attendant-export",
        description="Trains translation and embedding models and writes them as bundles that "
        "attendant-server loads.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train_translation(_command(commands, "train-translation", "train a translation model"))
    _add_train_bert(_command(commands, "train-bert", "train an embedding model"))
    _add_export(_command(commands, "export", "write a trained model as a verified bundle"))
    for name, text in {
        "verify": "check a bundle's files and that it still gives its reference outputs",
        "inspect": "print a bundle's manifest for people",
        "upgrade": "rewrite the manifest of an older bundle in the present version",
    }.items():
        bundle = _command(commands, name, text)
        bundle.add_argument("bundle", type=Path, help="folder of the bundle: .../<name>/<version>")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("DATA_DIR"),
        help="folder that data files are relative to; environment DATA_DIR",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_data_dir(parser)
    parser.add_argument(
        "--run-dir",
        type=Path,
        required=True,
        help="folder for checkpoints, tokenizer and curves; the same command continues what is "
        "there",
    )
    parser.add_argument(
        "--init-from",
        type=Path,
        help="run folder or bundle whose weights and tokenizer (but see --new-tokenizer) to start "
        "from; the data card of a "
        "later export must name the data of a bundle",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, or cuda")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices")
    parser.add_argument(
        "--train", default=TATOEBA_TRAIN, help="training pairs, source<TAB>target, .gz or plain"
    )
    parser.add_argument("--valid", default=TATOEBA_VALID, help="validation pairs, as --train")


def _add_schedule(parser: argparse.ArgumentParser, prefix: str = "", text: str = "") -> None:
    """Arguments of one `TrainingOptions`; the two phases of train-bert have one set each."""

    def add(name: str, kind: type, default: float | None, description: str) -> None:
        parser.add_argument(
            f"--{prefix}{name}", type=kind, default=default, help=description + text
        )

    add("max-minutes", float, None, "stop after so many minutes of training")
    add("max-epochs", int, None, "stop after so often going through the data")
    add("max-steps", int, None, "stop after so many steps")
    add("validate-every-steps", int, 500, "steps between validations, each with a checkpoint")
    add("patience", int, 10, "stop after so many validations without a better result")
    add("learning-rate", float, 1e-3 if prefix else 2e-3, "peak learning rate")
    add("warmup-steps", int, 400, "steps until the peak")


def _add_sizes(parser: argparse.ArgumentParser, vocab_size: int, num_heads: int) -> None:
    parser.add_argument("--vocab-size", type=int, default=vocab_size, help="of a new tokenizer")
    parser.add_argument("--d-model", type=int, default=256, help="width of the hidden states")
    parser.add_argument("--num-heads", type=int, default=num_heads, help="attention heads")
    parser.add_argument(
        "--d-feed-forward", type=int, default=1024, help="width of the feed-forward layers"
    )
    parser.add_argument("--dropout", type=float, default=0.1, help="dropout probability")


def _add_train_translation(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument(
        "--swap", action="store_true", help="translate the second column to the first"
    )
    parser.add_argument(
        "--new-tokenizer",
        action="store_true",
        help="with --init-from: train a tokenizer all the same, as for other languages; tokens "
        "that both have keep their embeddings",
    )
    _add_sizes(parser, vocab_size=8000, num_heads=8)
    parser.add_argument("--num-encoder-layers", type=int, default=6, help="layers of the encoder")
    parser.add_argument("--num-decoder-layers", type=int, default=2, help="layers of the decoder")
    parser.add_argument("--post-norm", action="store_true", help="layer norm after each sublayer")
    _add_schedule(parser)
    parser.add_argument(
        "--max-batch-tokens", type=int, default=4096, help="padded tokens of a batch, one side"
    )
    parser.add_argument("--label-smoothing", type=float, default=0.1, help="share spread evenly")


def _add_train_bert(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument(
        "--text",
        action="append",
        metavar="FILE[:MAX_CHARACTERS[:HELD_OUT]]",
        help="further text for the masked language model, with an empty line between documents, "
        "how much of it to draw and which share of its documents to validate on; may be repeated; "
        f"default {' '.join(DEFAULT_TEXTS)}",
    )
    _add_sizes(parser, vocab_size=16_000, num_heads=4)
    parser.add_argument("--num-layers", type=int, default=6, help="layers of the encoder")
    parser.add_argument("--pre-norm", action="store_true", help="layer norm before each sublayer")
    parser.add_argument("--max-tokens", type=int, default=64, help="longest text to learn from")
    _add_schedule(parser, "embeddings-", " (token embeddings alone; left out without a limit)")
    _add_schedule(parser, "mlm-", " (masked language model alone; left out without a limit)")
    _add_schedule(parser, "contrastive-", " (sentence embeddings and masked language model)")
    parser.add_argument(
        "--max-batch-tokens", type=int, default=4096, help="padded tokens of a masked batch"
    )
    parser.add_argument("--mask-ratio", type=float, default=0.15, help="share of masked tokens")
    parser.add_argument(
        "--mlm-weight", type=float, default=1.0, help="of the masked beside the contrastive loss"
    )
    parser.add_argument("--max-pairs", type=int, default=128, help="pairs of a contrastive batch")
    parser.add_argument("--temperature", type=float, default=0.05, help="of the contrastive loss")


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_data_dir(parser)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the training run")
    parser.add_argument(
        "--bundles-dir", type=Path, default=Path("bundles"), help="the bundle goes into it"
    )
    parser.add_argument("--name", help="name of the model; default: that of the run folder")
    parser.add_argument("--model-version", default="1", help="version of the model")
    parser.add_argument(
        "--data-card",
        type=Path,
        required=True,
        help="JSON file with description, licence, languages, data with credits, weaknesses",
    )
    parser.add_argument(
        "--precisions", default="int8,fp16", help=f"comma-separated, of {', '.join(PRECISIONS)}"
    )
    parser.add_argument(
        "--valid", help="pairs for verification; default: the run's, else " + TATOEBA_VALID
    )
    parser.add_argument(
        "--test", action="append", default=[], help="pairs to measure quality on; may be repeated"
    )
    parser.add_argument(
        "--shortlists",
        help="pairs, such as those of the training, to learn vocabulary shortlists from, by which "
        "servers decode large vocabularies quicker; default: none",
    )
    parser.add_argument("--swap", action="store_true", help="the second column is the source")
    parser.add_argument("--max-tokens", type=int, help="longest text; default: the run's, else 256")
    parser.add_argument(
        "--recipe", help="how it was trained; overrides what the run recorded", default=""
    )
    parser.add_argument(
        "--hardware", help="what it was trained on; overrides what the run recorded", default=""
    )
