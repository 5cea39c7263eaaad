"""Write the JSON of all dashboards: ``python -m deploy.dashboards FOLDER``."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.engine import engine
from deploy.dashboards.overview import overview


def documents() -> dict[str, str]:
    """The JSON of each dashboard, by the name of its file."""
    return {"overview.json": _json(overview()), "engine.json": _json(engine())}


def _json(board: Dashboard) -> str:
    document = json.loads(JSONEncoder(sort_keys=True).encode(board))
    for variable in document["templating"]["list"]:
        for key in ("auto", "auto_count", "auto_min"):
            del variable[key]  # the SDK writes them for all variables, but only intervals have them
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (folder / name).write_text(document, encoding="utf-8")
