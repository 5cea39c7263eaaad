"""Paths of the data files that commands are given."""

import argparse
from pathlib import Path


def data_file(args: argparse.Namespace, name: str) -> Path:
    """The path of a data file. Raises ValueError for a relative name without a base folder."""
    if args.data_dir is None and not Path(name).is_absolute():
        raise ValueError(f"{name} needs a base folder: --data-dir or DATA_DIR")
    path = Path(args.data_dir or "", name)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return path
