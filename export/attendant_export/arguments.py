"""The arguments of ``attendant-export``: names, defaults and help texts."""

import argparse
import os
from pathlib import Path

from attendant_manifest.rules import PRECISIONS

from attendant_export import __version__
from attendant_export.bundle.rebuild import OPTIONAL_GRAPHS
from attendant_export.data.augmentation import ALL, CHANGES
from attendant_export.graphs.attention import HEAD_DIM_MULTIPLE

TATOEBA_TRAIN = "tatoeba/tatoeba.en-de.train.tsv.gz"
TATOEBA_VALID = "tatoeba/tatoeba.en-de.valid.tsv.gz"
DEFAULT_TEXTS = (
    "mlm/en.digitalgov.txt.gz:1000000:0.02",
    "mlm/en.sgd-dialogues.txt.gz:1500000:0.005",
    "mlm/en.novels-1880-1930.txt.gz:300000",
    "mlm/en.novels-1839-1879.txt.gz:200000",
    "mlm/de.novels.txt.gz:1500000",
)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options, except empty ones."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_empty = action.default in (None, False, "", [])
        return action.help if is_empty else super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the chosen command is in ``command``."""
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
    _add_import(
        _command(commands, "import", "write a checkpoint of another project as a verified bundle")
    )
    for name, text in {
        "verify": "check the files of a bundle and recompute its reference outputs",
        "inspect": "print the manifest of a bundle in readable form",
        "upgrade": "rewrite the manifest of an older bundle in the current version",
        "rebuild": "write new graphs and a new manifest for an older bundle from its weights, "
        "without a checkpoint; weights and tokenizers stay as they are",
        "sign": "sign the manifest of a bundle, for servers with --bundle-keys",
    }.items():
        bundle = _command(commands, name, text)
        bundle.add_argument("bundle", type=Path, help="folder of the bundle: .../<name>/<version>")
        if name == "sign":
            bundle.add_argument(
                "--key", type=Path, required=True, help="PEM file with the private key, Ed25519"
            )
        if name == "rebuild":
            bundle.add_argument(
                "--only",
                action="append",
                choices=OPTIONAL_GRAPHS,
                default=[],
                help="write this graph and keep the others; may be repeated",
            )
        if name == "verify":
            bundle.add_argument(
                "--against",
                metavar="SOURCE",
                help="checkpoint that the bundle was imported from, as for import, to compare with "
                "its original implementation; needs transformers, or ctranslate2 for its folders",
            )
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=_HelpFormatter,
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("DATA_DIR"),
        help="base folder of relative data files; default: the environment variable DATA_DIR",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_data_dir(parser)
    parser.add_argument(
        "--run-dir",
        type=Path,
        required=True,
        help="folder of the run, for checkpoints, tokenizer and curves; a run in it is resumed",
    )
    parser.add_argument(
        "--init-from",
        type=Path,
        help="run folder or bundle that gives the initial weights and the tokenizer; after a start "
        "from a bundle, the data card of an export must also list the data of the bundle",
    )
    parser.add_argument("--device", default="auto", help="device to train on: auto, cpu or cuda")
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices")
    parser.add_argument(
        "--train", default=TATOEBA_TRAIN, help="training pairs, source<TAB>target, .gz or plain"
    )
    parser.add_argument("--valid", default=TATOEBA_VALID, help="validation pairs, like --train")


def _add_schedule(parser: argparse.ArgumentParser, prefix: str = "", text: str = "") -> None:
    """Add the arguments of one `TrainingOptions`; each phase of train-bert has its own set."""

    def add(name: str, kind: type, default: float | None, description: str) -> None:
        parser.add_argument(
            f"--{prefix}{name}", type=kind, default=default, help=description + text
        )

    add("max-minutes", float, None, "limit of the training time in minutes")
    add("max-epochs", int, None, "limit of passes over the data")
    add("max-steps", int, None, "limit of optimizer steps")
    add("validate-every-steps", int, 500, "steps between validations; each writes a checkpoint")
    add("patience", int, 10, "validations without improvement before an early stop")
    add("learning-rate", float, 1e-3 if prefix else 2e-3, "peak learning rate")
    add("warmup-steps", int, 400, "steps until the peak learning rate")


def _add_sizes(
    parser: argparse.ArgumentParser, vocab_size: int, num_heads: int, head_dim_multiple: int = 1
) -> None:
    parser.add_argument(
        "--vocab-size", type=int, default=vocab_size, help="vocabulary size of a new tokenizer"
    )
    parser.add_argument("--d-model", type=int, default=256, help="width of the hidden states")
    factor = f"{head_dim_multiple} times " if head_dim_multiple > 1 else ""
    parser.add_argument(
        "--num-heads",
        type=int,
        default=num_heads,
        help=f"attention heads; --d-model must be a multiple of {factor}this number",
    )
    parser.add_argument(
        "--d-feed-forward", type=int, default=1024, help="width of the feed-forward layers"
    )
    parser.add_argument("--dropout", type=float, default=0.1, help="dropout probability")


def _add_train_translation(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
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
        "--extra-pairs",
        action="append",
        default=[],
        metavar="FILE[:REPEATS]",
        help="further training pairs, like --train; an epoch has each of them REPEATS times, 1 by "
        "default; may be repeated",
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
    _add_sizes(parser, vocab_size=8000, num_heads=8, head_dim_multiple=HEAD_DIM_MULTIPLE)
    parser.add_argument("--num-encoder-layers", type=int, default=6, help="layers of the encoder")
    parser.add_argument("--num-decoder-layers", type=int, default=2, help="layers of the decoder")
    parser.add_argument("--post-norm", action="store_true", help="layer norms after the sublayers")
    _add_schedule(parser)
    parser.add_argument(
        "--max-batch-tokens", type=int, default=4096, help="padded tokens of a batch, per side"
    )
    parser.add_argument(
        "--label-smoothing",
        type=float,
        default=0.1,
        help="probability spread evenly over the vocabulary",
    )


def _add_train_bert(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument(
        "--text",
        action="append",
        metavar="FILE[:MAX_CHARACTERS[:HELD_OUT]]",
        help="additional text for the masked language model, with an empty line between documents; "
        "MAX_CHARACTERS limits the sample drawn from it, HELD_OUT is the share of documents for "
        f"validation; may be repeated; default {' '.join(DEFAULT_TEXTS)}",
    )
    _add_sizes(parser, vocab_size=16_000, num_heads=4)
    parser.add_argument("--num-layers", type=int, default=6, help="layers of the encoder")
    parser.add_argument("--pre-norm", action="store_true", help="layer norms before the sublayers")
    parser.add_argument("--max-tokens", type=int, default=64, help="limit of tokens of a text")
    _add_schedule(parser, "embeddings-", " (phase of token embeddings only; skipped by default)")
    _add_schedule(parser, "mlm-", " (phase of masked language model only; skipped by default)")
    _add_schedule(parser, "contrastive-", " (phase of sentence embeddings and masked tokens)")
    parser.add_argument(
        "--max-batch-tokens", type=int, default=4096, help="padded tokens of a masked-text batch"
    )
    parser.add_argument("--mask-ratio", type=float, default=0.15, help="share of masked tokens")
    parser.add_argument(
        "--mlm-weight",
        type=float,
        default=1.0,
        help="weight of the masked-language-model loss relative to the contrastive loss",
    )
    parser.add_argument("--max-pairs", type=int, default=128, help="pairs of a contrastive batch")
    parser.add_argument(
        "--temperature", type=float, default=0.05, help="temperature of the contrastive loss"
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_data_dir(parser)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the training run")
    parser.add_argument(
        "--bundles-dir", type=Path, default=Path("bundles"), help="parent folder of the new bundle"
    )
    parser.add_argument("--name", help="name of the model; default: name of the run folder")
    parser.add_argument("--model-version", default="1", help="version of the model")
    parser.add_argument(
        "--data-card",
        type=Path,
        required=True,
        help="JSON file with description, licence, languages, data and credits, weaknesses",
    )
    parser.add_argument(
        "--precisions",
        default="int8,fp16",
        help=f"precisions, separated by commas: {', '.join(PRECISIONS)}",
    )
    parser.add_argument(
        "--valid",
        help="pairs for verification; default: those of the run, or " + TATOEBA_VALID,
    )
    parser.add_argument(
        "--test", action="append", default=[], help="pairs to measure quality on; may be repeated"
    )
    parser.add_argument(
        "--shortlists",
        help="pairs to learn vocabulary shortlists from, such as the training pairs; shortlists "
        "make decoding faster for models with large vocabularies",
    )
    _add_control(parser)
    parser.add_argument("--swap", action="store_true", help="read the second column as the source")
    parser.add_argument(
        "--max-tokens",
        type=int,
        help="limit of tokens of a text; default: that of the run, or 256",
    )
    parser.add_argument(
        "--recipe",
        help="description of the training; default: that in the run folder",
        default="",
    )
    parser.add_argument(
        "--hardware",
        help="hardware of the training; default: that in the run folder",
        default="",
    )


def _add_control(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="CONTROL",
        help="property of translations that requests can choose by tokens of the vocabulary, such "
        "as 'formality:formal=<2formal>,informal=<2informal>'; more after semicolons: "
        "default=VALUE, place=PLACE of the tokens (source, before a text, by default; source-end "
        "or target), description=TEXT; may be repeated",
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="folder of the checkpoint, as model hubs lay it out, or the name of a model on the "
        "Hugging Face Hub, such as Helsinki-NLP/opus-mt-en-de, whose files are downloaded to the "
        "cache of huggingface_hub (HF_HOME, HF_TOKEN and its other variables apply), or the "
        "languages of a model of Firefox Translations, such as firefox:en-de, whose files are "
        "downloaded to attendant/firefox in XDG_CACHE_HOME, ~/.cache by default "
        "(ATTENDANT_FIREFOX_REGISTRY is the URL of another registry)",
    )
    parser.add_argument(
        "--revision",
        help="branch, tag or commit of a model on the hub, default: its default branch; of a model "
        "of Firefox, its architecture, such as tiny, or the SHA-256 of its model file, default: "
        "the released model",
    )
    parser.add_argument(
        "--bundles-dir", type=Path, default=Path("bundles"), help="parent folder of the new bundle"
    )
    parser.add_argument("--name", help="name of the model; default: made of the source's name")
    parser.add_argument("--model-version", default="1", help="version of the model")
    parser.add_argument(
        "--precisions", default="fp32", help=f"comma-separated, of {', '.join(PRECISIONS)}"
    )
    parser.add_argument(
        "--license",
        help="SPDX identifier of the licence of the weights; default: that of the source's card",
    )
    parser.add_argument(
        "--languages",
        help="comma-separated BCP 47 tags of an embedding model; default: those of the source's "
        "card",
    )
    for side, verb in (("source", "reads"), ("target", "writes")):
        parser.add_argument(
            f"--{side}-languages",
            help=f"comma-separated BCP 47 tags that a translation model {verb}; default: those of "
            "the source's tokenizer or name",
        )
    _add_control(parser)
    parser.add_argument(
        "--max-tokens", type=int, help="longest text in tokens; default: that of the source"
    )
    parser.add_argument(
        "--trained-dimensions",
        metavar="N,N",
        help="numbers of first values of a vector for which an embedding model was trained "
        "(Matryoshka); default: those that the checkpoint states",
    )
    parser.add_argument(
        "--without-head",
        action="store_true",
        help="import the embedding part of a model for classification or another task, without its "
        "head",
    )
    parser.add_argument(
        "--tokenizer",
        help="tokens of a model of CTranslate2 or OpenNMT-py: characters, whitespace (what is "
        "between white space), or the name of a SentencePiece model or tokenizer.json in the "
        "folder; default: the only such file",
    )
