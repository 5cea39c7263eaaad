"""The child process that loads one bundle on trial, see `bundle_trial`."""

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from attendant.v1.bundle_pb2 import Manifest

from attendant_server.bundle_trial import REFUSED
from attendant_server.bundles import Bundle, BundleError
from attendant_server.loading import ModelLoader
from attendant_server.manifest_description import describe_model
from attendant_server.observability.metrics import NoMetrics
from attendant_server.reasons import reason_of
from attendant_server.settings import Settings
from attendant_server.system.parent import die_with

MAX_REASON_CHARACTERS = 2000


def main() -> NoReturn:
    """Load the bundle that the arguments and the standard input describe, and end the process."""
    directory, copies, precision, device, shortlists, seconds, max_bytes, parent = sys.argv[1:]
    die_with(int(parent))
    _limit(int(seconds), int(max_bytes))
    manifest = Manifest.FromString(sys.stdin.buffer.read())
    bundle = Bundle(Path(directory), manifest, precision, Path(copies))
    settings = Settings(num_threads=1, device=device, shortlists=shortlists)
    reason = _refusal(bundle, settings)
    sys.stdout.buffer.write(reason[:MAX_REASON_CHARACTERS].encode("utf-8", "replace"))
    sys.stdout.flush()
    os._exit(REFUSED if reason else 0)


def _limit(seconds: int, max_bytes: int) -> None:
    """Limit the time and the memory of this process."""
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # so that the system kills this process before the server
        Path("/proc/self/oom_score_adj").write_text("1000")


def _refusal(bundle: Bundle, settings: Settings) -> str:
    """Why the bundle cannot be loaded; empty if it can."""
    metrics = NoMetrics()
    metrics.add_model(bundle.key, describe_model(bundle).kind.label, bundle.precision, [])
    loader = ModelLoader(settings, metrics)
    try:
        loader.open_device()
        loaded = loader.load_copy(bundle)
        if loaded.attention is not None:
            loaded.attention.try_out(bundle)
    except BundleError as error:
        return str(error).removeprefix(f"{bundle.directory}: ")
    except BaseException as error:  # panics of the tokenizers are no Exception
        return reason_of(error)
    return ""


if __name__ == "__main__":
    main()
