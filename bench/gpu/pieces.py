"""Splits run folders into files that are small enough to be brought back, and joins them again.

    python -m bench.gpu.pieces split --out OUT build/bench/gpu/runs/en-de build/bench/gpu/runs/de-en
    python -m bench.gpu.pieces join --to runs OUT

The files that an export needs of the runs go to one archive, which is cut into pieces of 15 MiB.
The best weights are stored in fp16, the precision of GPU bundles. The names of the pieces have a
hash of the archive, so that pieces of two archives are never joined. A run that was joined can be
exported, and another run can start from it (``--init-from``), but it cannot be resumed.
"""

import argparse
import hashlib
import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from attendant_export.runs import checkpoint
from safetensors.torch import save

from bench.arguments import bench_parser

WEIGHTS = f"{checkpoint.BEST}/{checkpoint.WEIGHTS}"
OTHER_FILES = (
    "config.json",
    "history.csv",
    "inputs.json",
    "last/state.json",
    "options.toml",
    "run.json",
    "tokenizer.json",
)
PIECE_BYTES = 15 * 2**20
MAX_PIECES = 4
"""All pieces take less than 64 MiB, with room for figures and logs."""
PIECE = re.compile(r"runs-([0-9a-f]{16})-(\d+)-of-(\d+)")


def split(runs: Sequence[Path], out: Path) -> list[Path]:
    """Write the pieces of run folders to ``out`` and remove those of earlier archives.

    Raises FileNotFoundError for a run without weights, and ValueError for damaged weights and for
    runs that are too large.
    """
    archive = _archive(runs)
    parts = [archive[i : i + PIECE_BYTES] for i in range(0, len(archive), PIECE_BYTES)]
    if len(parts) > MAX_PIECES:
        limit = MAX_PIECES * PIECE_BYTES
        raise ValueError(f"{len(runs)} runs are {len(archive):,} bytes; the limit is {limit:,}")
    earlier = [path for path in out.glob("runs-*") if PIECE.fullmatch(path.name)]
    name = f"runs-{_digest(archive)}"
    paths = []
    for number, part in enumerate(parts):
        paths.append(out / f"{name}-{number}-of-{len(parts)}")
        paths[-1].write_bytes(part)
    for path in set(earlier) - set(paths):
        path.unlink()
    return paths


def join(folder: Path, target: Path) -> list[str]:
    """Write the runs whose pieces lie in ``folder`` to folders in ``target``; returns their names.

    Raises ValueError if no archive is complete, and FileExistsError for a run that exists.
    """
    found: defaultdict[tuple[str, int], dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.iterdir()):
        if match := PIECE.fullmatch(path.name):
            found[match[1], int(match[3])][int(match[2])] = path
    whole = [(digest, p) for (digest, number), p in found.items() if len(p) == number]
    if len(whole) != 1:
        raise ValueError(f"{folder} has {len(whole)} complete archives, want one")
    ((digest, pieces),) = whole
    archive = b"".join(pieces[number].read_bytes() for number in sorted(pieces))
    if _digest(archive) != digest:
        raise ValueError(f"{folder}: the pieces of runs-{digest} are damaged")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = sorted({name.split("/")[0] for name in tar.getnames()})
        for name in names:
            if (target / name).exists():
                raise FileExistsError(f"{target / name} exists already")
        tar.extractall(target, filter="data")
    return names


def _archive(runs: Sequence[Path]) -> bytes:
    """A tar archive of the files that matter of each run, in a folder of its name."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for run in runs:
            weights = checkpoint.read_weights(checkpoint.find_weights(run))
            halves = {name: tensor.half() for name, tensor in weights.items()}
            _add(tar, f"{run.name}/{WEIGHTS}", save(halves))
            for name in OTHER_FILES:
                if (run / name).exists():
                    _add(tar, f"{run.name}/{name}", (run / name).read_bytes())
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _digest(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()[:16]


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    commands = parser.add_subparsers(dest="command", required=True)
    splitting = commands.add_parser("split", help="write the pieces of runs")
    splitting.add_argument("runs", nargs="+", type=Path, help="run folders")
    splitting.add_argument("--out", type=Path, required=True, help="folder of the pieces")
    joining = commands.add_parser("join", help="write the runs of pieces")
    joining.add_argument("folder", type=Path, help="folder of the pieces")
    joining.add_argument("--to", type=Path, required=True, help="folder of the run folders")
    return parser


def main() -> None:
    """Split or join, and print what was written."""
    arguments = build_parser().parse_args()
    if arguments.command == "split":
        print(*split(arguments.runs, arguments.out), sep="\n")
    else:
        print(*(arguments.to / name for name in join(arguments.folder, arguments.to)), sep="\n")


if __name__ == "__main__":
    main()
