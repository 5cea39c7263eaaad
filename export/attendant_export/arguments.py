"""The arguments of ``attendant-export``: names, defaults and help texts."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never

from attendant_command_line import add_print_completion, add_version
from attendant_manifest import MANIFEST_VERSION
from attendant_manifest.rules import PRECISIONS

from attendant_export import __version__
from attendant_export.bundle.rebuild import OPTIONAL_GRAPHS
from attendant_export.bundle.static_distillation import (
    COUNTED_COEFFICIENT,
    DIMENSIONS,
    MAX_TOKENS,
    ZIPF_COEFFICIENT,
)
from attendant_export.classifier_arguments import add_train_classifier
from attendant_export.configuration import with_config
from attendant_export.corpus_arguments import add_translate_corpus
from attendant_export.language_arguments import (
    add_train_language_model,
    add_train_word_vectors,
)
from attendant_export.ranges import positive, whole
from attendant_export.training_arguments import (
    TATOEBA_VALID,
    add_data_dir,
    add_train_bert,
    add_train_translation,
)

FORMATS = {"manifest": str(MANIFEST_VERSION)}
PACKAGES = (
    *("attendant-protos", "torch", "onnx", "onnxruntime", "onnxruntime-gpu"),
    *("tokenizers", "numpy"),
)
"""What `--version` tells the versions of."""

_TRAININGS = {
    "train-translation": (add_train_translation, "train a translation model"),
    "train-bert": (add_train_bert, "train an embedding model"),
    "train-language-model": (add_train_language_model, "train a causal language model"),
    "train-classifier": (add_train_classifier, "train a classification head with its encoder"),
    "train-word-vectors": (add_train_word_vectors, "train word vectors by skip-gram or GloVe"),
    "translate-corpus": (
        add_translate_corpus,
        "translate text into sentence pairs to train on, for distillation and back-translation",
    ),
}
"""What adds the arguments of the commands for trainings and their data, and what these do."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options, except empty ones."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_empty = action.default in (None, False, "", [])
        return action.help if is_empty else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one line, like all other errors of the command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> Never:
        self.exit(2, f"attendant-export: {message}; {self.prog} --help lists the options\n")


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one command, also those of its ``--config``; its name is in ``command``.

    ``parser`` is the parser of the command. Raises ValueError for a file of options that is not
    one, and OSError if it cannot be read.
    """
    parser = build_parser()
    commands = next(a.choices for a in parser._actions if isinstance(a.choices, dict))
    command = commands.get(arguments[0]) if arguments else None
    if command is not None and "--config" in command._option_string_actions:
        arguments = [arguments[0], *with_config(command, arguments[1:])]
    args = parser.parse_args(arguments)
    args.parser = commands[args.command]
    return args


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the chosen command is in ``command``."""
    parser = _Parser(
        prog="attendant-export",
        description="Trains translation, embedding and language models and word vectors, and "
        "writes them as bundles that attendant-server loads.",
    )
    add_version(parser, __version__, formats=FORMATS, packages=PACKAGES)
    add_print_completion(parser, "attendant-export")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add, text) in _TRAININGS.items():
        add(_command(commands, name, text))
    _add_export(_command(commands, "export", "write a trained model as a verified bundle"))
    _add_distill_static(
        _command(
            commands,
            "distill-static",
            "distil an embedding bundle into static embeddings, one vector for each token",
        )
    )
    _add_import(
        _command(commands, "import", "write a checkpoint of another project as a verified bundle")
    )
    for name, text in {
        "verify": "check the files of a bundle and recompute its reference outputs",
        "inspect": "print the manifest of a bundle in readable form",
        "upgrade": "rewrite the manifest of an older bundle in the current version",
        "rebuild": "write new graphs and a new manifest for an older bundle from its weights, "
        "without a checkpoint, or add glossaries; weights and tokenizers stay as they are",
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
            _add_glossary(bundle)
        if name == "verify":
            bundle.add_argument(
                "--against",
                metavar="SOURCE",
                help="checkpoint that the bundle was imported from, as for import, to compare with "
                "its original implementation; needs transformers, ctranslate2 for its folders, or "
                "gensim for files of word vectors",
            )
    return parser


def _command(
    commands: "argparse._SubParsersAction[_Parser]", name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=_HelpFormatter,
    )


def _add_bundle(parser: argparse.ArgumentParser, precisions: str) -> None:
    """Add the place, the version and the precisions of a new bundle."""
    parser.add_argument(
        "--bundles-dir", type=Path, default=Path("bundles"), help="parent folder of the new bundle"
    )
    parser.add_argument("--model-version", default="1", help="version of the model")
    parser.add_argument(
        "--precisions",
        default=precisions,
        help=f"precisions, separated by commas: {', '.join(PRECISIONS)}",
    )


def _add_test(parser: argparse.ArgumentParser, metavar: str | None = None, more: str = "") -> None:
    parser.add_argument(
        "--test",
        action="append",
        default=[],
        metavar=metavar,
        help=f"pairs to measure quality on{more}; may be repeated",
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the training run")
    _add_bundle(parser, "int8,fp16")
    parser.add_argument("--name", help="name of the model; default: name of the run folder")
    parser.add_argument(
        "--data-card",
        type=Path,
        required=True,
        help="JSON file with description, licence, languages, data and credits, weaknesses",
    )
    parser.add_argument(
        "--valid",
        metavar="FILE[;NAME=VALUE]...",
        help="pairs for verification, with languages and controls as for --train of "
        "train-translation; default: those of the run, or " + TATOEBA_VALID,
    )
    _add_test(parser, metavar="FILE[;NAME=VALUE]...", more=", like --valid")
    parser.add_argument(
        "--shortlists",
        help="pairs to learn vocabulary shortlists from, such as the training pairs; shortlists "
        "make decoding faster for models with large vocabularies",
    )
    _add_control(parser)
    _add_glossary(parser)
    parser.add_argument(
        "--average",
        type=whole(1, 100),
        metavar="N",
        help="export the mean of the weights of the last N validations, which --keep-checkpoints "
        "of the training has kept, instead of the best weights",
    )
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


def _add_distill_static(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument(
        "--teacher",
        type=Path,
        required=True,
        metavar="BUNDLE_DIR",
        help="bundle of an embedding model, NAME/VERSION, whose vectors of single tokens become "
        "those of the new model; its licence is that of the new model",
    )
    _add_bundle(parser, "int8,fp16")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument(
        "--dimensions",
        type=whole(1),
        help="dimension of the vectors, at most the teacher's; default: "
        f"{DIMENSIONS}, or the teacher's if that is less",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="FILE",
        help="text in which the tokens are counted, because frequent tokens weigh less: a file, "
        "plain or .gz, .xz or .bz2, or a folder of such files; may be repeated; default: "
        "frequencies by Zipf's law for the order of the vocabulary",
    )
    parser.add_argument(
        "--sif-coefficient",
        type=positive,
        metavar="FREQUENCY",
        help="frequency of a token with half the weight of a very rare one; larger: weights are "
        f"more equal; default: {COUNTED_COEFFICIENT:g} with --text, {ZIPF_COEFFICIENT:g} without",
    )
    _add_test(parser)
    parser.add_argument(
        "--max-tokens", type=int, default=MAX_TOKENS, help="limit of tokens of a text"
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


def _add_glossary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--glossary",
        action="append",
        type=Path,
        default=[],
        metavar="NAME.tsv",
        help="glossary that calls to a translation model can choose by its name: a term and its "
        "translations on each line, separated by tabs; may be repeated",
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="folder of the checkpoint, as model hubs lay it out, or a file of word vectors "
        "(word2vec, GloVe, .vec of fastText, also .gz), or the name of a model on the "
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
    _add_bundle(parser, "fp32")
    parser.add_argument("--name", help="name of the model; default: made of the source's name")
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
    _add_glossary(parser)
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
        "--max-words",
        type=int,
        help="number of words to import of a file of word vectors, its first ones; default: all",
    )
    parser.add_argument(
        "--tokenizer",
        help="tokens of a model of CTranslate2 or OpenNMT-py: characters, whitespace (what is "
        "between white space), or the name of a SentencePiece model or tokenizer.json in the "
        "folder; default: the only such file",
    )
