"""The pages of the site, found by following the links of Markdown files."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

STARTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"(\]\()([^()\s]+)(\))")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
COPIED = {".png", ".svg"}
LANGUAGES = {".py": "python", ".proto": "protobuf", ".sh": "bash", ".json": "json"}
Target = tuple[str, str]
"""The path of a linked file or folder, and the anchor in it or an empty text."""
MAX_SOURCE_BYTES = 200_000
"""A longer file that a page links to is copied, not shown as a page."""


@dataclass
class Page:
    """A file of the site: a page with its Markdown ``text``, or a copy of ``source``."""

    place: str
    source: str = ""
    text: str | None = None

    @property
    def anchors(self) -> set[str]:
        """The anchors of the headings, as forges and the site make them."""
        prose = "".join(
            "" if part.startswith("```") else part for part, _ in _parts(self.text or "")
        )
        headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}

    @property
    def title(self) -> str:
        """The first heading of a page, or else its name."""
        found = re.search(r"^# (.+)$", self.text or "", re.MULTILINE)
        return found[1].replace("`", "") if found else self.place

    def write(self, root: Path, folder: Path) -> None:
        """Write the file under its place in a folder."""
        path = folder / self.place
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.text is None:
            shutil.copyfile(root / self.source, path)
        else:
            path.write_text(self.text, encoding="utf-8")


def collect(root: Path) -> tuple[list[Page], list[str]]:
    """All files of the site, and a message for each link that leads nowhere."""
    docs = sorted((root / "docs").rglob("*.md"))
    waiting = [*STARTS, *(path.relative_to(root).as_posix() for path in docs)]
    pages, links, seen = dict[str, Page](), dict[str, list[Target]](), set(waiting)
    while waiting:
        path = waiting.pop()
        pages[path], links[path] = _page(root, path)
        new = {target for target, _ in links[path] if (root / target).exists()} - seen
        seen |= new
        waiting += sorted(new)
    anchors = {path: page.anchors for path, page in pages.items()}
    faults = [
        f"{path}: {target}{anchor and '#'}{anchor} does not exist"
        for path, targets in links.items()
        for target, anchor in targets
        if target not in pages or (anchor and anchor not in anchors[target])
    ]
    return list(pages.values()), faults


def _page(root: Path, path: str) -> tuple[Page, list[Target]]:
    """The page of a file or folder, and what it links to."""
    source, place = root / path, _place(root, path)
    if source.is_dir():
        names = sorted(each.name for each in source.iterdir() if _is_shown(each))
        text = "".join(f"- [{name}]({name})\n" for name in names)
        return _followed(root, path, place, f"# {path}\n\n{text}")
    if not place.endswith(".md"):
        return Page(place, source=path), []
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".md":
        return _followed(root, os.path.dirname(path), place, text, path)
    language = LANGUAGES.get(source.suffix, "text")
    return Page(place, text=f"# {path}\n\n~~~~{language}\n{text}\n~~~~\n"), []


def _is_shown(path: Path) -> bool:
    return path.is_file() and not path.name.startswith((".", "__"))


def _place(root: Path, path: str) -> str:
    """Where the file or folder of the repository is in the site."""
    source = root / path
    if source.is_dir():
        return f"{path}/index.md"
    if source.name == "README.md":
        return str(PurePosixPath(path).with_name("index.md"))
    is_copied = source.suffix in COPIED or source.suffix == ".md"
    is_copied |= source.is_file() and source.stat().st_size > MAX_SOURCE_BYTES
    return path if is_copied else f"{path}.md"


def _followed(
    root: Path, folder: str, place: str, text: str, own: str = ""
) -> tuple[Page, list[Target]]:
    """A page whose links lead to places of the site, and what it links to.

    Links are relative to ``folder``; ``own`` is the path of the file, for links to itself.
    """
    linked = list[Target]()

    def changed(match: re.Match[str]) -> str:
        target, hash_sign, anchor = match[2].partition("#")
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = os.path.normpath(os.path.join(folder, target)) if target else own
        if (root / path / "README.md").is_file():
            path = f"{path}/README.md"
        linked.append((path, anchor))
        if not target:
            return match[0]
        relative = os.path.relpath(_place(root, path), os.path.dirname(place))
        return f"{match[1]}{relative}{hash_sign}{anchor}{match[3]}"

    parts = [part if is_code else LINK.sub(changed, part) for part, is_code in _parts(text)]
    return Page(place, text="".join(parts)), linked


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a text, and whether each is code."""
    for index, part in enumerate(CODE.split(text)):
        yield part, index % 2 == 1
