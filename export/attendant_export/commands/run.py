"""Runs one command and turns its errors into messages and exit codes."""

import logging
import sys
from collections.abc import Sequence

from attendant_export.arguments import read_arguments
from attendant_export.bundle.manifest import BundleError
from attendant_export.commands import (
    bundles,
    classifier_training,
    corpora,
    language_training,
    training,
    word_vector_training,
)
from attendant_export.corpora.translator import TranslationFailed
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.stopping import Stopped
from attendant_export.train.loop import TrainingDiverged
from attendant_export.verify.graph_sessions import GraphError, ParityError

COMMANDS = {
    "train-translation": training.run_train_translation,
    "train-bert": training.run_train_bert,
    "train-language-model": language_training.run_train_language_model,
    "train-classifier": classifier_training.run_train_classifier,
    "train-word-vectors": word_vector_training.run_train_word_vectors,
    "translate-corpus": corpora.run_translate_corpus,
    "export": bundles.run_export,
    "distill-static": bundles.run_distill_static,
    "import": bundles.run_import,
    "verify": bundles.run_verify,
    "inspect": bundles.run_inspect,
    "sign": bundles.run_sign,
    "upgrade": bundles.run_upgrade,
    "rebuild": bundles.run_rebuild,
}


def run(arguments: Sequence[str] | None = None) -> None:
    """Run one command. An expected error prints a message and sets the exit code.

    1: a bundle is damaged or cannot be written, its graphs differ from the model, a training
    diverged, or a server failed; 2: any other error of the input; 129, 130 or 143: SIGHUP, SIGINT
    or SIGTERM stopped a command that can be continued.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        args = read_arguments(sys.argv[1:] if arguments is None else arguments)
        COMMANDS[args.command](args)
    except Stopped as stopped:
        sys.exit(_fail(stopped, 128 + stopped.stopped_by))
    except (BundleError, GraphError, ParityError, TrainingDiverged, TranslationFailed) as error:
        sys.exit(_fail(error, 1))
    except (CheckpointError, ValueError, OSError) as error:
        sys.exit(_fail(error, 2))


def _fail(error: Exception, code: int) -> int:
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    print(f"attendant-export: {message}", file=sys.stderr)
    return code
