"""Installs the distributions in fresh environments and uses them, as people do.

    python trial.py DIST BUNDLES FOLDER [--uv UV] [--torch REQUIREMENT]

DIST has the wheels, BUNDLES the built-in bundles; the environments are made in FOLDER with the
Python that runs this program, which needs nothing else. Ends with the first failure. With ``--uv``,
the server and the client are installed with the lowest versions that they allow; with ``--torch``,
the exporter is tried as well.
"""

import argparse
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import HeaderParser
from pathlib import Path
from urllib.request import urlopen
from zipfile import ZipFile

CLIENT = {"attendant-client": "completion,plot"}
SERVER = {"attendant-server": "cpu,detection,http,tracing,completion", **CLIENT}
EXPORTER = {"attendant-export": "cpu,completion", **CLIENT}
ENGLISH, GERMAN = "Where is the nearest train station?", "Wo ist der nächste Bahnhof?"


class Environment:
    """A fresh environment; its commands run in a folder without a repository around it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        venv.create(folder, with_pip=True)

    def command(self, name: str, *arguments: str) -> list[str]:
        """The words of a command of the environment."""
        return [str(self._folder / "bin" / name), *arguments]

    def run(self, name: str, *arguments: str) -> str:
        """The output of a command; raises if it fails."""
        command = self.command(name, *arguments)
        done = subprocess.run(command, cwd=self._folder, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def install(self, dist: Path, extras: dict[str, str], *others: str) -> None:
        """Install ours from the folder only, then what they need from the index."""
        ours = ["--no-index", "--no-deps", "--find-links", str(dist), "attendant-protos", *extras]
        self.run("pip", "install", "--quiet", *ours)
        needed = [f"{name}[{extra}]" for name, extra in extras.items()]
        self.run("pip", "install", "--quiet", *needed, *others)
        self.run("pip", "check")

    def install_lowest(self, dist: Path, extras: dict[str, str], uv: str) -> None:
        """As `install`, with the lowest versions that the distributions allow themselves."""
        needed = list[str]()
        for name, extra in {"attendant-protos": "", **extras}.items():
            (wheel,) = dist.glob(f"{name.replace('-', '_')}-*.whl")
            # Only what is named here counts as direct.
            needed += [str(wheel), *requirements(wheel, extra.split(","))]
        python = str(self._folder / "bin" / "python")
        options = ["--quiet", "--python", python, "--resolution", "lowest-direct"]
        subprocess.run([uv, "pip", "install", *options, *needed], check=True)
        self.run("pip", "check")

    def version(self, name: str) -> str:
        """The first line that a command's ``--version`` prints."""
        return self.run(name, "--version").splitlines()[0]


def requirements(wheel: Path, extras: list[str]) -> Iterator[str]:
    """What a wheel needs of other projects, with some of its extras."""
    with ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        described = HeaderParser().parsestr(archive.read(name).decode())
    for line in described.get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == '(\w+)'", marker)
        if not requirement.startswith("attendant-") and (extra is None or extra[1] in extras):
            yield requirement


@contextmanager
def running(environment: Environment, bundles: Path) -> Iterator[tuple[str, str]]:
    """A server of the bundles on free ports; gives its addresses of gRPC and of HTTP."""
    flags = ["--bundles", str(bundles), "--host", "127.0.0.1", "--port", "0", "--http-port", "0"]
    command = environment.command("attendant-server", *flags, "--metrics-port", "-1")
    with subprocess.Popen(command, cwd=bundles.root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            grpc, http = re.findall(r" on port (\d+)", process.stdout.readline())
            yield f"127.0.0.1:{grpc}", f"127.0.0.1:{http}"
            process.terminate()
            check(process.wait(60) == 0, "the server does not stop cleanly")
        finally:
            process.kill()


def check(is_right: bool, fault: str) -> None:
    """Raise SystemExit unless something is as it should be."""
    if not is_right:
        raise SystemExit(fault)


def is_importable(environment: Environment, module: str) -> bool:
    """Whether an environment has a module."""
    code = f"import importlib.util as u; print(u.find_spec({module!r}) is not None)"
    return environment.run("python", "-c", code) == "True\n"


def try_client_alone(environment: Environment, address: str) -> None:
    """Call a server from an environment of the client's own."""
    call = ["--target", address, "translate", "--model", "en-de", ENGLISH]
    translated = environment.run("attendant", *call)
    check(translated == f"{GERMAN}\n", f"the translation is {translated!r}")
    for module in ("attendant_server", "attendant_export", "onnxruntime", "tokenizers"):
        check(not is_importable(environment, module), f"the client's environment has {module}")


def try_server(environment: Environment, client: Environment, bundles: Path) -> None:
    """Serve the built-in bundles, and call every one of them."""
    check(not is_importable(environment, "torch"), "the server's environment has PyTorch")
    with running(environment, bundles) as (address, http):
        try_client_alone(client, address)
        with urlopen(f"http://{http}/v1/models") as answer:
            check(b'"bert-en-de"' in answer.read(), "the list of models over HTTP lacks one")
        for call in (
            ["translate", "--from", "auto:de,en", "--to", "fr", "The dog is barking."],
            ["similarity", "The dog is barking.", "Der Hund bellt."],
            ["fill", "Thank [MASK] very much."],
            ["models"],
        ):
            printed = client.run("attendant", "--target", address, *call)
            check(bool(printed.strip()), f"attendant {call[0]} answers nothing")


def try_commands(environment: Environment, *names: str) -> None:
    """Ask commands for their versions and for scripts of completion."""
    for name in names:
        line = environment.version(name)
        check(line.startswith(f"{name} ") and line.split()[1][0].isdigit(), f"it is {line!r}")
        for shell in ("bash", "zsh", "fish"):
            script = environment.run(name, "--print-completion", shell)
            check(name in script, f"the script of {shell} for {name} does not name it")


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(description="Installs and tries the distributions.")
    for name in ("dist", "bundles", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--uv")
    parser.add_argument("--torch")
    options = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)
    client = Environment(options.folder / "client")
    server = Environment(options.folder / "server")
    for environment, extras in ((client, CLIENT), (server, SERVER)):
        if options.uv:
            environment.install_lowest(options.dist, extras, options.uv)
        else:
            environment.install(options.dist, extras)
    try_server(server, client, options.bundles.resolve())
    try_commands(server, "attendant-server", "attendant")
    if options.torch:
        exporter = Environment(options.folder / "exporter")
        exporter.install(options.dist, EXPORTER, options.torch)
        exporter.run("attendant-export", "inspect", str(options.bundles.resolve() / "en-de" / "3"))
        try_commands(exporter, "attendant-export", "attendant")
    print(f"tried with Python {sys.version.split()[0]}: {server.run('pip', 'list')}")


if __name__ == "__main__":
    main()
