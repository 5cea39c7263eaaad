"""Translates with Bergamot's own engine, in an environment of its own, and reports its times.

    PYTHON bench/rivals/bergamot_engine.py --model FOLDER --workers 2

Runs without the other modules of `bench`: the wheel of bergamot needs Python 3.10. The package is
not imported, because that calls the network; its extension is loaded by path. Reads a JSON list of
texts from each line of standard input, and answers each with its seconds and the translations.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def load_extension() -> Any:
    """The extension of bergamot, a module. Raises SystemExit if it is not installed."""
    package = importlib.util.find_spec("bergamot")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("bergamot is not installed: pip install --no-deps bergamot==0.4.5")
    folder = Path(package.submodule_search_locations[0]).parent
    path = next(folder.rglob("_bergamot*.so"))
    spec = importlib.util.spec_from_file_location("_bergamot", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DEFAULTS = {"mini-batch-words": "1024", "max-length-break": "128"}
"""Options that the engine needs and that the configuration of some models lacks; 256 to 1,024 words
are equally fast."""


def complete_model(model: Path, folder: Path) -> Path:
    """A configuration in ``folder``, beside links to the files of the model, with all options."""
    for file in model.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    config = next(model.glob("config*.yml")).read_text(encoding="utf-8")
    added = [f"{name}: {value}" for name, value in DEFAULTS.items() if f"\n{name}:" not in config]
    completed = folder / "completed.yml"
    completed.write_text("\n".join([config.rstrip(), *added, ""]), encoding="utf-8")
    return completed


def main() -> None:
    """Serve until the end of standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with config*.yml")
    parser.add_argument("--workers", type=int, default=1, help="threads that translate")
    arguments = parser.parse_args()
    bergamot = load_extension()
    service = bergamot.Service(bergamot.ServiceConfig(numWorkers=arguments.workers))
    with tempfile.TemporaryDirectory() as folder:
        model = service.modelFromConfigPath(str(complete_model(arguments.model, Path(folder))))
    options = bergamot.ResponseOptions()
    print(json.dumps("serving"), flush=True)
    for line in sys.stdin:
        texts = bergamot.VectorString(json.loads(line))
        started = time.perf_counter()
        responses = service.translate(model, texts, options)
        seconds = time.perf_counter() - started
        answer = {"seconds": seconds, "texts": [response.target.text for response in responses]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
