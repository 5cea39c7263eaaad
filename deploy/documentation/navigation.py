"""The navigation of the site."""

import json
from collections.abc import Mapping, Sequence

SECTIONS = {
    "Use": ("command", "other-languages", "protocols", "models", "training", "benchmarks"),
    "Operate": ("operations", "deployment", "security", "gpu-trial"),
}
"""The pages of docs/ by section; further ones are under "Project"."""
DECISIONS = "docs/decisions/"


def navigation(titles: Mapping[str, str], reference: Sequence[str]) -> str:
    """The navigation as TOML, for pages with their titles by place."""
    named = {f"docs/{name}.md" for names in SECTIONS.values() for name in names}
    named |= {"docs/api.md"}
    more = [
        place
        for place in titles
        if place.startswith("docs/") and place.count("/") == 1 and place not in named
    ]
    sections = {
        "Start": ["index.md"],
        **{title: [f"docs/{name}.md" for name in names] for title, names in SECTIONS.items()},
        "Reference": ["docs/api.md", *reference],
        "Project": ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", *more],
        "Decisions": [place for place in titles if place.startswith(DECISIONS)],
    }
    shown = []
    for title, places in sections.items():
        entries = [f"{{ {json.dumps(_shown(p, titles))} = {json.dumps(p)} }}" for p in places]
        shown.append(f"{{ {json.dumps(title)} = [{', '.join(entries)}] }}")
    return f"[{', '.join(shown)}]"


def _shown(place: str, titles: Mapping[str, str]) -> str:
    number = place.removeprefix(DECISIONS)[:4]
    return f"{number} {titles[place]}" if number.isdigit() else titles[place]
