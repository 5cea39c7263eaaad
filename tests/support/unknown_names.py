"""A bundle whose model writes the unknown token: to it, the name Tom was the unknown token."""

import shutil
from pathlib import Path
from typing import Any

from tests.support.altered import with_manifest, with_tokenizer

BUILT_IN = Path(__file__).parents[2] / "bundles" / "en-de" / "3"
NAME = "\u2581Tom"


def write_bundle(root: Path) -> Path:
    """The built-in English-German bundle with the ids of Tom and the unknown token exchanged.

    So text that the vocabulary lacks is translated like this name, to the unknown token. Returns
    ``root``.
    """
    ids: dict[str, int] = {}

    def exchange(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["<unk>"], vocabulary[NAME] = vocabulary[NAME], vocabulary["<unk>"]
        [unknown] = (t for t in tokenizer["added_tokens"] if t["content"] == "<unk>")
        unknown["id"] = ids["unk_id"] = vocabulary["<unk>"]

    def state(manifest: dict[str, Any]) -> None:
        manifest["special_tokens"] |= ids

    plain = with_tokenizer(BUILT_IN, root / "plain", exchange) / "en-de" / "3"
    with_manifest(plain, root, state)
    shutil.rmtree(root / "plain")
    return root
