"""Records the answers of a server, or compares them with the recorded ones.

python -m tests.recorded record
python -m tests.recorded compare --server ../other/.venv/bin/attendant-server
python -m tests.recorded compare --server NEW --against OLD
"""

import argparse
import sys
from pathlib import Path

from tests.recorded.recording import FOLDER, Recording, read_recording, report
from tests.recorded.replay import installed_server, replay
from tests.recorded.servers import SERVERS, RecordedServer
from tests.recorded.surroundings import surroundings


def main() -> int:
    """Run the command; the exit code is 1 if answers differ."""
    parser = _parser()
    arguments = parser.parse_args()
    by_name = {server.name: server for server in SERVERS}
    unknown = [name for name in arguments.names if name not in by_name]
    if unknown:
        parser.error(f"no server {', '.join(unknown)}; there are {', '.join(by_name)}")
    servers = [by_name[name] for name in arguments.names or by_name]
    if arguments.command == "record":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        for server in servers:
            recorded(server, arguments.server).save(_path(arguments.folder, server))
        return 0
    reports = {
        server.name: report(
            recorded(server, arguments.against)
            if arguments.against
            else read_recording(_path(arguments.folder, server)),
            recorded(server, arguments.server),
            server.bound,
        )
        for server in servers
    }
    for name, text in reports.items():
        print(f"{name}: {text or 'the same answers'}")
    return int(any(reports.values()))


def recorded(server: RecordedServer, executable: Path) -> Recording:
    """A recording of the answers of an executable."""
    return Recording(surroundings(executable), replay(server, executable))


def _path(folder: Path, server: RecordedServer) -> Path:
    return folder / f"{server.name}.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.recorded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="servers of the recording, all unless given",
    )
    parser.add_argument(
        "--server",
        type=Path,
        default=installed_server(),
        help="the attendant-server to ask; that of this environment unless given",
    )
    parser.add_argument(
        "--against", type=Path, help="compare with this attendant-server, not with the recording"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the recording is; tests/recorded/answers"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
