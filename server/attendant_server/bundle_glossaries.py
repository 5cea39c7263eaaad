"""Reads the glossaries of bundles."""

from attendant_manifest.translation_rules import glossary_path

from attendant_server.application.glossaries import Glossary, parsed_glossary
from attendant_server.bundles import Bundle, BundleError
from attendant_server.errors import GlossaryUnreadable


def read_glossaries(bundle: Bundle) -> dict[str, Glossary]:
    """The glossaries of a bundle by name; raises BundleError for a broken one."""
    return {name: _read(bundle, name) for name in bundle.manifest.glossaries}


def _read(bundle: Bundle, name: str) -> Glossary:
    path = glossary_path(name)
    try:
        return parsed_glossary(name, bundle.path_of(path).read_bytes())
    except GlossaryUnreadable as error:
        raise BundleError(f"{bundle.directory / path}: {error}") from error
