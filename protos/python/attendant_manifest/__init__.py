"""Manifests of bundles as JSON text: reads every version, writes the present version.

The server and the exporter share this package and the schema in ``bundle.proto``. Manifests of
version 1 are upgraded to version 2 when they are read.
"""

import json
from reprlib import repr as short_repr
from typing import Any

from attendant.v1.bundle_pb2 import Manifest
from google.protobuf import json_format

from attendant_manifest import version_1

__version__ = "0.1.0"

MANIFEST_VERSION = 2


class ManifestError(ValueError):
    """A text is not a manifest of a known version; the message states the reason."""


def parse_manifest(text: str) -> Manifest:
    """The manifest in ``text``, upgraded to `MANIFEST_VERSION`. Raises ManifestError.

    Checks only the form: unknown fields, wrong types, duplicate fields. `rules.problems` checks the
    content.
    """
    return parse_stored_manifest(text)[0]


def parse_stored_manifest(text: str) -> tuple[Manifest, int]:
    """The manifest, as `parse_manifest` returns it, and the version that ``text`` states."""
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates)
        if not isinstance(content, dict):
            raise ManifestError("is not a JSON object")
        version = _version_of(content)
        if version == 1:
            content = version_1.upgrade(content)
        return json_format.ParseDict(content, Manifest()), version
    except ManifestError:
        raise
    except KeyError as error:
        raise ManifestError(f"{error.args[0]} is missing") from error
    except SystemError as error:  # protobuf's error for a lone surrogate
        raise ManifestError("has text that is not valid Unicode") from error
    except RecursionError as error:
        raise ManifestError("is nested too deeply") from error
    except (ValueError, json_format.ParseError) as error:
        raise ManifestError(str(error)) from error
    except (TypeError, AttributeError, OverflowError) as error:
        raise ManifestError(f"a field has a value of another type: {error}") from error


def _version_of(content: dict[str, Any]) -> int:
    """The ``manifest_version`` of a manifest's content, 0 if it is missing.

    Protobuf reads this field in the content of every version. Thus all spellings of an integer that
    protobuf accepts, such as ``2.0`` and ``"2"``, state the same version.
    """
    field = Manifest.DESCRIPTOR.fields_by_name["manifest_version"]
    stated = {n: value for n, value in content.items() if n in (field.name, field.json_name)}
    try:
        return json_format.ParseDict(stated, Manifest()).manifest_version
    except json_format.ParseError as error:
        values = ", ".join(map(short_repr, stated.values()))
        raise ManifestError(f"{field.name} must be a 32-bit integer, not {values}") from error


def format_manifest(manifest: Manifest) -> str:
    """The text of ``manifest.json``: indented JSON with the field names of ``bundle.proto``."""
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True, indent=1)
    return text + "\n"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ManifestError(f"{twice} is given twice")
    return content
