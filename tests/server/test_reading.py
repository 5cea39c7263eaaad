import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from attendant_server.services.reading import MAX_INLINE_TOKENS, TextReader


@pytest.mark.parametrize(
    ("num_tokens", "thread"),
    [(0, "MainThread"), (MAX_INLINE_TOKENS, "MainThread"), (MAX_INLINE_TOKENS + 1, "pool_0")],
)
def test_only_long_answers_are_built_on_the_threads_of_the_pool(num_tokens: int, thread: str):
    with ThreadPoolExecutor(1, "pool") as pool:
        building = TextReader(pool).build(num_tokens, lambda: threading.current_thread().name)
        assert asyncio.run(building) == thread
