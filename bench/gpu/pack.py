"""Prepares what is carried to a machine with a GPU and no network, and prints its size.

    python -m bench.gpu.pack runtime
    python -m bench.gpu.pack bundles --data-dir DATA_DIR --models en-de,de-en,en-fr
    python -m bench.gpu.pack restore

A checkout with the built-in bundles is larger than some machines accept. ``runtime`` leaves out of
the working tree what a trial does not read, and adds to ``.gpu/`` the wheels of packages that such
a machine lacks; the archive of ONNX Runtime's GPU build must lie there already. ``bundles`` keeps
the built-in bundles for a GPU and leaves out the tests instead, for a later call to a machine that
still has the runtime. With ``--data-dir``, either copies what trainings of ``--models`` read to
``build/gpu-data``. ``restore`` brings all files back. docs/gpu-trial.md has the whole procedure.
"""

import argparse
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench.arguments import bench_parser, some_of
from bench.gpu.training import FRENCH, MODELS

RUNTIME = Path(".gpu")
ARCHIVE = RUNTIME / "ort.tar.xz"
DATA = Path("build/gpu-data")
PYTHON = "3.12"
"""The Python of the machine."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
WHEELS = (
    "cffi",
    "cryptography",
    "googleapis-common-protos",
    "grpcio-health-checking",
    "grpcio-reflection",
    "grpcio-status",
    "langcodes",
    "protobuf",
    "pyjwt",
    "sentencex",
)
"""What an image with PyTorch, transformers and gRPC lacks, in the versions that are installed here.
protobuf must not be older than the version that generated the code of the others."""
CODE = (
    "/*",
    "!/bundles/",
    "!/deploy/",
    "!/docs/",
    "!/tests/bench/",
    "!/tests/client/",
    "!/tests/export/",
    "!/tests/recorded/",
    "/bundles/en-de/3/tokenizer.json",
)
"""The files that a trial reads, as patterns of git sparse-checkout."""
BUNDLES = ("!/tests/", "/bundles/en-de/3/", "/bundles/bert-en-de/1/")
"""Patterns after those of `CODE`: the tests are left out, the bundles for a GPU are kept. Servers
check all files of a bundle, so its int8 graphs are carried too."""
MAX_BYTES = 64 * 2**20
"""Limit of all that is carried."""
ENGLISH_GERMAN = "tatoeba/tatoeba.en-de"


def keep_only(repository: Path, patterns: Sequence[str]) -> None:
    """Leave the other tracked files out of the working tree; git keeps them."""
    command = ["git", "-C", str(repository), "sparse-checkout", "set", "--no-cone", *patterns]
    subprocess.run(command, check=True)


def restore(repository: Path) -> None:
    """Bring all tracked files back."""
    subprocess.run(["git", "-C", str(repository), "sparse-checkout", "disable"], check=True)


def download_wheels(folder: Path) -> None:
    """Replace the wheels in ``folder`` by those of `WHEELS`."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp"]
    command += [f"--platform={platform}_x86_64" for platform in PLATFORMS]
    command += [f"--dest={folder}", *(f"{name}=={version(name)}" for name in WHEELS)]
    subprocess.run(command, check=True)


def copy_data(data_dir: Path, models: Sequence[str]) -> None:
    """Copy the training and validation text of models to `DATA`, and the credits."""
    shutil.rmtree(DATA, ignore_errors=True)
    for pair in sorted({FRENCH if "fr" in model else ENGLISH_GERMAN for model in models}):
        for name in (f"{pair}.train.tsv.gz", f"{pair}.valid.tsv.gz", "tatoeba/ATTRIBUTION.txt"):
            (DATA / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data_dir / name, DATA / name)


def carried(repository: Path, *ignored: Path) -> Counter[str]:
    """Bytes, by folder, of files that git does not ignore and of those in ``ignored`` folders."""
    command = ["git", "-C", str(repository), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run(
        [*command, "--exclude-standard"], check=True, capture_output=True, text=True
    ).stdout
    paths = [repository / name for name in filter(None, listed.split("\0"))]
    for folder in ignored:
        paths += (repository / folder).rglob("*")
    sizes: Counter[str] = Counter()
    for path in set(paths):
        if path.is_file():
            sizes[path.relative_to(repository).parts[0]] += path.stat().st_size
    return sizes


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("what", choices=("runtime", "bundles", "restore"))
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the training data to carry as well"
    )
    parser.add_argument(
        "--models", type=some_of(*MODELS), default=["en-de"], help="models that are to be trained"
    )
    return parser


def main() -> None:
    """Pack, and print sizes; raises SystemExit if it is too large or the runtime is missing."""
    arguments, here = build_parser().parse_args(), Path()
    if arguments.what == "restore":
        restore(here)
        return
    ignored = []
    if arguments.what == "runtime":
        if not ARCHIVE.exists():
            raise SystemExit(f"{ARCHIVE} does not exist: put ONNX Runtime's GPU build there first")
        download_wheels(RUNTIME / "wheels")
        ignored.append(RUNTIME)
    if arguments.data_dir is not None:
        copy_data(arguments.data_dir, arguments.models)
        ignored.append(DATA)
    keep_only(here, CODE if arguments.what == "runtime" else [*CODE, *BUNDLES])
    sizes = carried(here, *ignored)
    for name, size in sizes.most_common():
        print(f"{size / 2**20:6.2f} MiB {name}")
    total = sum(sizes.values())
    print(f"{total / 2**20:6.2f} MiB in all; carry {' '.join(map(str, ignored)) or 'nothing else'}")
    if total > MAX_BYTES:
        raise SystemExit(f"this is more than the limit of {MAX_BYTES / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
