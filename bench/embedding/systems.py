"""Starts the embedding systems: attendant and its rivals.

In-process engines run in worker processes. The bench process itself calls the attendant server.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from bench.embedding.caller import Caller, embedding_caller
from bench.embedding.worker import Worker, running_worker
from bench.models.build import HUGGING_FACE
from bench.reporting import OURS
from bench.servers import flags_for, running_server

BARE_LOOP, REFERENCE, INFINITY = "bare-loop", "sentence-transformers", "infinity"
RIVALS = (REFERENCE, INFINITY, BARE_LOOP)
BATCHES_CALLERS = (OURS, INFINITY)
"""Systems that batch texts across callers."""
INFINITY_PYTHON = "BENCH_INFINITY_PYTHON"
"""Environment variable with the Python interpreter that has infinity installed. Its prefix is not
that of attendant's settings, because a server refuses unknown settings."""

System = Caller | Worker


@asynccontextmanager
async def our_server(bundle: Path, precision: str) -> AsyncIterator[Caller]:
    """The attendant server with one model and default settings."""
    with running_server(*flags_for(bundle), f"--precision={precision}") as server:
        async with embedding_caller(server) as ours:
            yield ours


def start(name: str, bundle: Path, precision: str) -> AbstractAsyncContextManager[System]:
    """Start the system called ``name``; it is loaded and idle while the block runs."""
    if name == OURS:
        return our_server(bundle, precision)
    python = os.environ.get(INFINITY_PYTHON, sys.executable) if name == INFINITY else sys.executable
    model = f"--model={HUGGING_FACE / bundle.parent.name}"
    modules = {
        BARE_LOOP: ["bench.embedding.bare_loop", f"--bundle={bundle}", f"--precision={precision}"],
        REFERENCE: ["bench.rivals.sentence_transformers_engine", model],
        INFINITY: ["bench.rivals.infinity_engine", model],
    }
    return running_worker([python, "-m", *modules[name]])
