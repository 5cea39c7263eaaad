"""Collects the pages of the documentation site, and writes the configuration of Zensical.

    python -m deploy.documentation FOLDER

Pages are the Markdown files of the repository and what they link to, under the same paths, so that
they need no other links than on any forge. Exit code 1 if a link leads nowhere.
"""

import shutil
import sys
from pathlib import Path

from deploy.documentation.links import Page, collect
from deploy.documentation.navigation import navigation
from deploy.documentation.reference import REFERENCE, reference_pages

ROOT = Path(__file__).parents[2]
CONFIGURATION = Path(__file__).with_name("zensical.toml")
NAVIGATION = "# The navigation is inserted here.\n"


def main(folder: Path) -> int:
    """Write pages and configuration into a folder, which is replaced; returns the exit code."""
    shutil.rmtree(folder, ignore_errors=True)
    pages, faults = collect(ROOT)
    for fault in faults:
        print(fault, file=sys.stderr)
    client = ROOT / "clients" / "python" / "attendant_client" / "__init__.py"
    reference = reference_pages(client.read_text(encoding="utf-8"))
    pages += [Page(path, text=text) for path, text in reference.items()]
    for page in pages:
        page.write(ROOT, folder / "pages")
    configuration = CONFIGURATION.read_text(encoding="utf-8")
    places = {page.place: page.title for page in pages if page.text is not None}
    listed = navigation({place: places[place] for place in sorted(places)}, REFERENCE)
    (folder / "zensical.toml").write_text(
        configuration.replace(NAVIGATION, f"nav = {listed}\n"), encoding="utf-8"
    )
    print(f"{len(pages)} files, {len(faults)} links that lead nowhere")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
