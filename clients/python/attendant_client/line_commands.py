"""Runs the subcommands of `attendant` that print one line for each input line.

A line that fails, or is blank, gives an empty line. Its fault goes to the standard error, the other
lines are answered, and the exit code is 1. With ``--json`` each line is an object whose keys do not
depend on success; `docs/command.md` lists them.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attendant_client.client import Client
from attendant_client.errors import TextError
from attendant_client.generation_results import GeneratedText
from attendant_client.input_lines import Line, batches, num_lines, opened_lines
from attendant_client.line_output import OutputFile, Progress, StandardOutput, complain
from attendant_client.printing import json_text
from attendant_client.results import Hypothesis


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
        if str(arguments.output or "").endswith(".npy"):
            return _save(self, client, arguments)
        with closing(_opened_output(arguments)) as output:
            all_good = True
            for answers in self._answered(client, arguments, output.num_lines):
                all_good &= all(answer.fault == "" for answer in answers)
                output.write([self._shown(answer, arguments) for answer in answers])
        return 0 if all_good else 1

    def _answered(
        self, client: Client, arguments: argparse.Namespace, skip: int
    ) -> Iterator[list["_Answer"]]:
        """The answers of all lines after the first `skip`, in batches; faults are printed."""
        name = "text" if arguments.texts else "line"
        total = None if arguments.input is None else num_lines(arguments.input)
        progress = Progress(sys.stderr if arguments.output else None, skip, total)
        with opened_lines(arguments, len(self.columns(arguments)), skip) as lines:
            for batch in batches(lines, batch_size(arguments)):
                answers = self._answers(client, arguments, batch)
                for answer in answers:
                    if answer.fault:
                        progress.clear()
                        complain(f"{name} {answer.line.number}: {answer.fault}")
                yield answers
                progress.advance(len(batch))
        progress.finish()

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

    def _shown(self, answer: "_Answer", arguments: argparse.Namespace) -> str:
        is_good = answer.result is not None and answer.error is None
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
    is_typed = reads_terminal and sys.stdin is not None and sys.stdin.isatty()
    return 1 if is_typed else int(arguments.batch_size)


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


def _opened_output(arguments: argparse.Namespace) -> StandardOutput | OutputFile:
    if arguments.output is None:
        return StandardOutput()
    return OutputFile(arguments.output, arguments.resume, arguments.json)


def _save(command: LineCommand, client: Client, arguments: argparse.Namespace) -> int:
    """Write the vectors of all lines to a file of NumPy; rows without a vector are NaN."""
    if os.path.exists(arguments.output):
        raise ValueError(f"{arguments.output} exists; remove it first")
    answers = [each for batch in command._answered(client, arguments, 0) for each in batch]
    vectors = {each.line.number: each.result.vector for each in answers if each.result is not None}
    if not vectors:
        raise ValueError("there is no text to embed")
    longest = max(vectors.values(), key=len)
    nothing = np.nan if longest.dtype.kind == "f" else 0
    rows = np.full((len(answers), len(longest)), nothing, longest.dtype)
    for number, vector in vectors.items():
        rows[number - 1] = vector if len(vector) else nothing
    with open(f"{arguments.output}.part", "wb") as file:
        np.save(file, rows)
    os.replace(f"{arguments.output}.part", arguments.output)
    return 1 if any(answer.fault for answer in answers) else 0
