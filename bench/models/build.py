"""Builds the models that exist only for measurements, on first use.

python -m bench.models.build --data-dir DATA_DIR copy-base minilm bert-base
"""

import argparse
import subprocess
import sys
from pathlib import Path

from bench.arguments import bench_parser

MODELS = ("copy-base", "copy-opus", "minilm", "bert-base")
BUNDLES = Path("build/bench/bundles")
HUGGING_FACE = Path("build/bench/hugging-face")
"""The same encoders in the format of Hugging Face, for the rivals."""


def built_bundle(model: str, data_dir: Path) -> Path:
    """The folder of a model's bundle, which is built if missing.

    A child process builds it, so that the measuring process never loads PyTorch.
    """
    bundle = BUNDLES / model / "1"
    if not bundle.exists():
        command = [sys.executable, "-m", "bench.models.build", f"--data-dir={data_dir}", model]
        subprocess.run(command, check=True)
    return bundle


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("models", nargs="+", choices=MODELS)
    return parser


def main() -> None:
    """Build the models named on the command line."""
    from bench.models import copying_transformer, encoders  # they load PyTorch

    arguments = build_parser().parse_args()
    for model in arguments.models:
        module = copying_transformer if model.startswith("copy") else encoders
        module.build(BUNDLES / model / "1", arguments.data_dir)


if __name__ == "__main__":
    main()
