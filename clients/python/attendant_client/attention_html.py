"""Writes attention weights as one HTML page that needs no other file and no network."""

import base64
import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import numpy as np

from attendant_client.attention_maps import TITLES, Kind, key_labels, query_labels
from attendant_client.attention_results import Attention

TEMPLATE = "attention_page.html"


def attention_page(
    attention: Attention, text: str, kinds: Iterable[Kind], layer: int | None, head: int | None
) -> str:
    """The page with all layers and heads of ``kinds``. It shows ``layer`` and ``head`` first.

    None stands for the last layer and for the mean of all heads.
    """
    data = {
        "model": attention.call.model,
        "text": text,
        "target": attention.target,
        "kinds": {kind: _kind(attention, text, kind) for kind in kinds},
        "layer": layer,
        "head": head,
    }
    template = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return template.replace("{{data}}", _in_script(data))


def _kind(attention: Attention, text: str, kind: Kind) -> dict[str, Any]:
    weights = getattr(attention, kind)
    levels = np.rint(np.clip(weights, 0, 1) * 65535).astype("<u2")
    return {
        "title": TITLES[kind],
        "queries": query_labels(attention, text, kind),
        "keys": key_labels(attention, text, kind),
        "num_heads": attention.num_heads[kind],
        "max_heads": weights.shape[1],
        "weights": base64.b64encode(levels.tobytes()).decode(),
    }


def _in_script(data: object) -> str:
    """JSON for a script element, which no text in it can end."""
    return json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
