"""Finds the paragraphs of text files that are closest in meaning to a question.

    python examples/semantic_search.py FOLDER "When does the shop open?" --num-results 5

Reads every *.txt file in FOLDER and the folders in it. With the built-in model `bert-en-de`, the
question and the texts may be English or German. Each line of the output has the cosine, the file
and line where the paragraph begins, and the paragraph. A paragraph that the model cannot read, such
as one that is too long, is named on the standard error and left out.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from attendant_client import AttendantError, Client


class Paragraph(NamedTuple):
    """A paragraph, its file, and the number of its first line, from 1."""

    path: Path
    line: int
    text: str


def paragraphs(path: Path) -> Iterator[Paragraph]:
    """The paragraphs of a file: lines between blank lines, joined."""
    start, lines = 1, list[str]()
    text = path.read_text(encoding="utf-8-sig")
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.strip():
            lines.append(line.strip())
        elif lines:
            yield Paragraph(path, start, " ".join(lines))
        if not line.strip():
            start, lines = number + 1, []


def search(
    client: Client, question: str, found: list[Paragraph], num_results: int
) -> list[tuple[float, Paragraph]]:
    """The paragraphs with the greatest cosines, greatest first."""
    query = client.embed(question, normalize=True).raise_for_errors().vector
    results = client.embed([paragraph.text for paragraph in found], normalize=True)
    scored = []
    for paragraph, result in zip(found, results, strict=True):
        if result.error is None:
            scored.append((float(result.vector @ query), paragraph))
        else:
            place = f"{paragraph.path}:{paragraph.line}"
            print(f"{place} is left out: {result.error}", file=sys.stderr)
    return sorted(scored, key=lambda pair: -pair[0])[:num_results]


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Searches text files by meaning.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("--num-results", type=int, default=5)
    parser.add_argument("--target", default="localhost:50051")
    options = parser.parse_args()
    found = [each for path in sorted(options.folder.rglob("*.txt")) for each in paragraphs(path)]
    if not found:
        sys.exit(f"{options.folder} has no paragraphs in *.txt files")
    try:
        with Client(options.target) as client:
            best = search(client, options.question, found, options.num_results)
    except AttendantError as error:
        sys.exit(str(error))
    for cosine, paragraph in best:
        print(f"{cosine:.3f} {paragraph.path}:{paragraph.line} {paragraph.text}")


if __name__ == "__main__":
    main()
