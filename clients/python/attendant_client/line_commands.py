"""Runs the subcommands of `attendant` that print one line for each input line.

A line that fails, or is blank, gives an empty line. Its fault goes to the standard error, the other
lines are answered, and the exit code is 1. With ``--json`` each line is an object whose keys do not
depend on success; `docs/command.md` lists them.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attendant_client.bulk_lines import (
    BULK_BATCH_SIZE,
    MAX_WAITING_CHARACTERS,
    in_bulk,
    parallel,
)
from attendant_client.client import Client
from attendant_client.errors import TextError
from attendant_client.file_flags import BATCH_SIZE
from attendant_client.generation_results import GeneratedText
from attendant_client.growing_files import VECTORS
from attendant_client.input_files import FileContent, InputFile, content_of
from attendant_client.input_lines import Line, batches, files_of, read_lines
from attendant_client.jobs import job_of
from attendant_client.line_output import JobOutput, StandardOutput, complain
from attendant_client.printing import json_text
from attendant_client.progress import Progress
from attendant_client.results import Hypothesis
from attendant_client.side_by_side import SideBySide


@dataclass(frozen=True, slots=True)
class LineCommand:
    """A subcommand that answers each line by itself."""

    ask: Callable[[Client, argparse.Namespace, Sequence[Line]], Sequence[Any]]
    """Send the texts of lines, and return their results."""
    text: Callable[[Any, argparse.Namespace], str]
    """The line for a good result."""
    keys: tuple[str, ...]
    """The fields of a result that its JSON has."""
    further_keys: Callable[[argparse.Namespace], tuple[str, ...]] = lambda _: ()
    """Further fields with some options."""
    fields: Callable[[Any, argparse.Namespace], Mapping[str, Any]] = lambda result, _: asdict(
        result
    )
    """The fields of a good result."""
    columns: Callable[[argparse.Namespace], tuple[str, ...]] = lambda _: ("text",)
    """The names of the texts of a line."""

    def __call__(self, client: Client, arguments: argparse.Namespace) -> int:
        """Answer all lines; return the exit code."""
        files = files_of(arguments)
        contents = [content_of(file.path) for file in files]
        with closing(_opened_output(arguments, files, contents)) as output:
            num_faults = output.done.num_faults
            if not output.done.is_complete:
                progress = _progress(arguments, output, contents)
                lines = read_lines(arguments, len(self.columns(arguments)), files, output.begin)
                for answers in self._answered(client, arguments, lines):
                    self._complain(answers, arguments, files, progress)
                    faults = sum(answer.fault != "" for answer in answers)
                    num_faults += faults
                    shown = [(each.line.file, self._shown(each, arguments)) for each in answers]
                    output.write(shown, faults)
                    progress.advance(len(answers))
                _check_unchanged(output, contents)
                output.finish()
                progress.finish()
        return 1 if num_faults else 0

    def _answered(
        self, client: Client, arguments: argparse.Namespace, lines: Iterator[Line]
    ) -> Iterator[list["_Answer"]]:
        """The answers of lines, in batches; those of files by several calls at a time."""
        parts = batches(lines, batch_size(arguments))
        if arguments.input is None:
            # One thread must not wait for the standard input while another one ends the process.
            for part in parts:
                yield self._answers(client, arguments, part)
            return
        found = SideBySide(
            parts,
            lambda part: self._answers(client, arguments, part),
            parallel(arguments),
            interrupt=client.close,
            weight=lambda part: sum(line.num_characters for line in part),
            max_weight=MAX_WAITING_CHARACTERS,
        )
        for _, answers in found:
            yield answers

    def _complain(
        self,
        answers: Sequence["_Answer"],
        arguments: argparse.Namespace,
        files: Sequence[InputFile],
        progress: Progress,
    ) -> None:
        for answer in answers:
            if answer.fault:
                place = f"{'text' if arguments.texts else 'line'} {answer.line.number}"
                name = files[answer.line.file].name if files else ""
                progress.clear()
                complain(f"{name + ', ' if name else ''}{place}: {answer.fault}")

    def _answers(
        self, client: Client, arguments: argparse.Namespace, batch: Sequence[Line]
    ) -> list["_Answer"]:
        sent = [line for line in batch if not (line.is_blank or line.fault)]
        found = iter(self.ask(client, arguments, sent) if sent else ())
        return [
            _Answer(line, None, None)
            if line.is_blank or line.fault
            else _Answer(line, result := next(found), result.error)
            for line in batch
        ]

    def _shown(self, answer: "_Answer", arguments: argparse.Namespace) -> Any:
        is_good = answer.result is not None and answer.error is None
        if str(arguments.output or "").endswith(VECTORS):
            return answer.result.vector if is_good else None
        if not arguments.json:
            return self.text(answer.result, arguments) if is_good else ""
        keys = self.keys + self.further_keys(arguments)
        fields = self.fields(answer.result, arguments) if is_good else dict.fromkeys(keys)
        texts = zip(self.columns(arguments), answer.line.texts, strict=True)
        return json_text(
            {"line": answer.line.number, **dict(texts)}
            | {key: fields[key] for key in keys}
            | {"error": answer.fault or None}
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """A line with its result; None for a line that was not sent."""

    line: Line
    result: Any
    error: TextError | None

    @property
    def fault(self) -> str:
        return self.line.fault or (self.error.message if self.error else "")


def batch_size(arguments: argparse.Namespace) -> int:
    """Lines of one call: one if somebody types them, so that each is answered at once."""
    reads_terminal = not arguments.texts and arguments.input is None
    if reads_terminal and sys.stdin is not None and sys.stdin.isatty():
        return 1
    return arguments.batch_size or (BULK_BATCH_SIZE if in_bulk(arguments) else BATCH_SIZE)


def hypotheses_line(
    hypotheses: Sequence[Hypothesis | GeneratedText], arguments: argparse.Namespace
) -> str:
    """The texts of hypotheses, with ``--scores`` each after its score, separated by tabs."""
    if len(hypotheses) == 1 and not arguments.scores:
        return one_line(hypotheses[0].text)
    columns = []
    for each in hypotheses:
        columns += [f"{each.score:.4f}"] if arguments.scores else []
        columns.append(one_line(each.text).replace("\t", " "))
    return "\t".join(columns)


def one_line(text: str) -> str:
    """The text without line breaks."""
    return re.sub(r"[\r\n]+", " ", text)


def _opened_output(
    arguments: argparse.Namespace,
    files: Sequence[InputFile],
    contents: Sequence[FileContent | None],
) -> StandardOutput | JobOutput:
    if arguments.output is None:
        return StandardOutput()
    job = job_of(arguments, files, contents)
    return JobOutput(Path(arguments.output), files, job, arguments.resume)


def _progress(
    arguments: argparse.Namespace,
    output: StandardOutput | JobOutput,
    contents: Sequence[FileContent | None],
) -> Progress:
    stream = sys.stderr if arguments.output else None
    return Progress(stream, output.done.num_all_lines, _num_lines(contents))


def _num_lines(contents: Sequence[FileContent | None]) -> int | None:
    """Lines of all files; None if nobody knows."""
    known = [content.num_lines for content in contents if content is not None]
    return sum(known) if known and len(known) == len(contents) else None


def _check_unchanged(
    output: StandardOutput | JobOutput, contents: Sequence[FileContent | None]
) -> None:
    """Raise ValueError if there were other lines than at the start."""
    num_lines = _num_lines(contents)
    if isinstance(output, JobOutput) and num_lines not in (None, output.num_all_lines):
        raise ValueError(
            f"the input has changed: it had {num_lines} lines, and then {output.num_all_lines}"
        )
