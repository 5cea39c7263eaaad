"""The pages with the reference of the Python client, which mkdocstrings fills in."""

import ast

PACKAGE = "attendant_client"
REFERENCE = ("reference/client.md", "reference/results.md", "reference/errors.md")
TITLES = ("Python client", "Results of the Python client", "Errors of the Python client")


def reference_pages(package: str) -> dict[str, str]:
    """The Markdown of each page by its place; ``package`` is the source of the client's package."""
    groups: tuple[list[str], ...] = ([], [], [])
    for node in ast.parse(package).body:
        if isinstance(node, ast.ImportFrom):
            module = str(node.module)
            kind = 2 if module.endswith("errors") else 1 if module.endswith("results") else 0
            groups[kind].extend(alias.name for alias in node.names)
    return {
        place: f"# {title}\n\n" + "\n".join(f"::: {PACKAGE}.{name}\n" for name in names)
        for place, title, names in zip(REFERENCE, TITLES, groups, strict=True)
    }
