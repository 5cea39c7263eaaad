"""The systems that embed texts, ours and rivals', and how each is started.

Engines in process run in workers; our server is called from the bench's own process.
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
"""The systems that batch texts of different callers."""
INFINITY_PYTHON = "BENCH_INFINITY_PYTHON"
"""The variable that names the Python of the environment where infinity is installed. It does not
begin as our settings do, since a server refuses those that it does not know."""

System = Caller | Worker


@asynccontextmanager
async def our_server(bundle: Path, precision: str) -> AsyncIterator[Caller]:
    """Our server with one model and its defaults."""
    with running_server(*flags_for(bundle), f"--precision={precision}") as server:
        async with embedding_caller(server) as ours:
            yield ours


def start(name: str, bundle: Path, precision: str) -> AbstractAsyncContextManager[System]:
    """The system called ``name``, loaded and waiting while the block runs."""
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
