"""The command ``attendant-server``.

Modules that are slow to import are imported late, once signals are kept.
"""

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import NoReturn

from attendant_server.system.early_signals import keep_early_signals
from attendant_server.system.standard_streams import open_standard_streams, say
from attendant_server.system.temporary_folders import remove_temporary_folders

SWITCH_SECONDS = 0.0005
"""Seconds for which a thread may keep the interpreter lock while another one waits for it."""

WITHOUT_ONNX_RUNTIME = (
    "ONNX Runtime is not installed: pip install 'attendant-server[cpu]', or 'attendant-server[gpu]'"
)


def main() -> NoReturn:
    """Run the server, and end the process as soon as the server has stopped.

    A normal interpreter exit would wait for hanging threads, or destroy objects that they use.
    """
    open_standard_streams()
    keep_early_signals()
    code = serve()
    remove_temporary_folders()
    import logging

    logging.shutdown()
    os._exit(code)


def serve() -> int:
    """Run the server until a signal comes; returns the exit code.

    0 after a clean stop, 1 for a failed start or a dead engine, 2 for bad settings.

    ``--settings-table`` prints the README's table instead, ``--new-api-key NAME`` a new key.
    """
    from attendant_server.setting_sources import load_settings, settings_table
    from attendant_server.settings import SettingsError

    match sys.argv[1:]:
        case ["--settings-table"]:
            say(settings_table())
            return 0
        case ["--new-api-key", name]:
            return _say_new_api_key(name)
    try:
        settings = load_settings(sys.argv[1:], os.environ)
    except SettingsError as error:
        with suppress(OSError):
            print(error, file=sys.stderr, flush=True)
        return 2
    if find_spec("onnxruntime") is None:
        with suppress(OSError):
            print(WITHOUT_ONNX_RUNTIME, file=sys.stderr, flush=True)
        return 1
    # gRPC would write further lines, which may hold data of clients.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # One call must not tokenize on all processors.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Without memory, the tokenizers library would hang while it writes a backtrace.
    os.environ["RUST_BACKTRACE"] = "0"
    # With Python's 5 ms, threads that work for a flood delay each step of other calls by as much.
    sys.setswitchinterval(SWITCH_SECONDS)
    from attendant_server.observability.logs import set_up_logs

    set_up_logs(settings.log_level, settings.log_format)
    import uvloop

    from attendant_server.process import run

    return uvloop.run(run(settings))


def _say_new_api_key(name: str) -> int:
    from attendant_server.security.api_keys import new_api_key

    try:
        key, entry = new_api_key(name)
    except ValueError as error:
        with suppress(OSError):
            print(error, file=sys.stderr, flush=True)
        return 2
    say(f"# The key for the caller. It is not stored and not shown again:\n{key}\n")
    say(f"# The entry for the file of --api-keys:\n{entry}")
    return 0


if __name__ == "__main__":
    main()
