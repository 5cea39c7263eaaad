"""The sources of checkpoints, by the form of their names."""

import re
from pathlib import Path

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.firefox import PREFIX, open_firefox
from attendant_export.importers.gguf import statements_of
from attendant_export.importers.gguf_file import SUFFIX as GGUF_SUFFIX
from attendant_export.importers.opennmt_py_file import SUFFIX
from attendant_export.importers.word_vectors import WordVectorFile

HUB_NAME = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
"""``OWNER/NAME``, or the name alone of an old model, such as ``bert-base-uncased``."""


def open_checkpoint(source: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or, if there is no such folder, of a model of Firefox or the hub.

    A ``.pt`` file is read as it is, with the tokenizer in its folder, and a ``.gguf`` file with the
    tokenizer inside. Other files are read as word vectors.

    Raises CheckpointError, and ValueError for a revision of a folder.
    """
    path = Path(source)
    if path.is_dir():
        return _local(Checkpoint(path), revision)
    if source.startswith(PREFIX):
        return open_firefox(source, revision)
    if path.suffix == SUFFIX and path.is_file():
        return _local(Checkpoint(path.absolute().parent, file=path.name), revision)
    if path.suffix == GGUF_SUFFIX and path.is_file():
        return _local(_gguf(path), revision)
    if path.is_file():
        return _local(WordVectorFile(path), revision)
    if path.exists():
        raise CheckpointError(f"{source} is neither a folder nor a file")
    if HUB_NAME.fullmatch(source):
        return _hub_model(source, revision)
    raise CheckpointError(
        f"{source}: no such folder, and not a name on the model hub, such as OWNER/NAME, nor of "
        "a model of Firefox, such as firefox:en-de"
    )


def _gguf(path: Path) -> Checkpoint:
    folder = path.absolute().parent
    return Checkpoint(folder, path.stem, statements=statements_of(path), file=path.name)


def _local(checkpoint: Checkpoint, revision: str | None) -> Checkpoint:
    if revision is not None:
        kind = "file" if checkpoint.file else "folder"
        raise ValueError(
            f"--revision is for models on the hub, but {checkpoint.location} is a {kind}"
        )
    return checkpoint


def _hub_model(name: str, revision: str | None) -> Checkpoint:
    try:
        from attendant_export.importers.hub import HubCheckpoint
    except ImportError as error:
        raise CheckpointError(
            f"{name}: no such folder, and a model on the hub needs huggingface_hub: "
            "pip install 'attendant-export[import]'"
        ) from error
    return HubCheckpoint(name, revision)
