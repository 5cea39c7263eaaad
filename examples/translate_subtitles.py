"""Translates subtitles into several languages at the same time and keeps their times.

    python examples/translate_subtitles.py film.srt --to de --to fr

Writes film.de.srt and film.fr.srt beside film.srt, and never overwrites a file. The server must
have one model for each pair of languages; the built-in models translate English into German and
French. Each subtitle is translated alone and wrapped into lines of 42 characters; tags such as <i>
are removed.
"""

import argparse
import asyncio
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from attendant_client import AsyncClient, AttendantError

TIME = r"\d+:\d\d:\d\d[,.]\d{3}"
TIMES = re.compile(rf"{TIME} --> {TIME}")
MAX_LINE_CHARACTERS = 42


class Subtitle(NamedTuple):
    """The number, the line of times, and the text of a subtitle, in one line."""

    number: str
    times: str
    text: str


def parse(srt: str) -> list[Subtitle]:
    """The subtitles of a file; raises ValueError for a block without number or times."""
    subtitles = []
    for block in re.split(r"\n[ \t]*\n\s*", srt.strip()):
        number, times, *lines = [*map(str.strip, block.split("\n")), "", ""]
        if not number.isdecimal() or not TIMES.match(times):
            raise ValueError(f"neither number nor times at the beginning of: {block!r}")
        text = re.sub(r"<[^<>]*>", "", " ".join(lines))
        subtitles.append(Subtitle(number, times, " ".join(text.split())))
    return subtitles


async def translate(
    client: AsyncClient, subtitles: list[Subtitle], source: str, target: str
) -> str:
    """The file with the translations; raises the error of a subtitle that fails."""
    texts = [subtitle.text for subtitle in subtitles if subtitle.text]
    results = await client.translate(texts, source_language=source, target_language=target)
    translated = iter(results.raise_for_errors())
    blocks = []
    for number, times, text in subtitles:
        lines = textwrap.wrap(next(translated).text, MAX_LINE_CHARACTERS) if text else []
        blocks.append("\n".join([number, times, *lines]) + "\n")
    return "\n".join(blocks)


async def run(options: argparse.Namespace) -> None:
    """Translate into all languages, then write the files."""
    subtitles = parse(options.file.read_text(encoding="utf-8-sig"))
    async with AsyncClient(options.target) as client:
        calls = [translate(client, subtitles, options.source, to) for to in options.to]
        for language, srt in zip(options.to, await asyncio.gather(*calls), strict=True):
            path = options.file.with_suffix(f".{language}.srt")
            with path.open("x", encoding="utf-8") as file:
                file.write(srt)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Translates subtitles.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--from", dest="source", default="en", help="language of the file")
    parser.add_argument("--to", action="append", required=True, help="may be repeated")
    parser.add_argument("--target", default="localhost:50051")
    try:
        asyncio.run(run(parser.parse_args()))
    except (AttendantError, OSError, ValueError) as error:
        sys.exit(str(error))
