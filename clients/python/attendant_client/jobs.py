"""What a job of `attendant` with ``--output`` depends on: its input files and its options."""

import argparse
from collections.abc import Sequence
from typing import Any

from attendant_client.connection_flags import FLAGS
from attendant_client.input_files import FileContent, InputFile

NOT_DECIDING = {
    *FLAGS,
    *("target", "timeout", "call_timeout", "request_id", "run", "texts"),
    *("input", "output", "resume", "batch_size", "parallel"),
}
"""Arguments that no line of the output depends on, and the input, which is compared by content."""


SPECIAL = {
    "command": "the command",
    "source_language": "--from",
    "target_language": "--to",
    "glossary_entries": "--glossary-file",
}
"""How arguments are given, if not as flags of their names."""


def job_of(
    arguments: argparse.Namespace,
    files: Sequence[InputFile],
    contents: Sequence[FileContent | None],
) -> dict[str, Any]:
    """The job as JSON values. Nothing is known of an input that can be read only once."""
    options = {_flag(k): v for k, v in vars(arguments).items() if k not in NOT_DECIDING}
    return {
        "options": options,
        "files": [
            {"name": file.name or file.path.name, "sha256": content.digest}
            for file, content in zip(files, contents, strict=True)
            if content is not None
        ],
    }


def _flag(name: str) -> str:
    return SPECIAL.get(name) or "--" + name.replace("_", "-")
