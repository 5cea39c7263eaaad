"""Calls a server with Triton's client for asyncio; prints JSON.

Usage: triton_asyncio.py ADDRESS TEXT...
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton


def texts_input(texts: list[str]) -> Any:
    """An input of texts."""
    tensor = triton.InferInput("TEXT", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=np.object_))
    return tensor


def shown(array: Any) -> Any:
    """Texts of an output."""
    return [text.decode() for text in array.flat]


async def pieces(client: Any, text: str) -> list[str]:
    """The pieces of a streamed translation."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {
            "model_name": "tiny-en-de",
            "inputs": [texts_input([text])],
            "parameters": {"stream": True},
            "enable_empty_final_response": True,
        }

    found = []
    async for result, error in client.stream_infer(requests()):
        assert error is None, error
        found += shown(result.as_numpy("TEXT"))
    return found


async def main() -> None:
    """Make all calls."""
    address, *texts = sys.argv[1:]
    async with triton.InferenceServerClient(address) as client:
        whole = await client.infer("tiny-en-de", [texts_input(texts)])
        each = await asyncio.gather(
            *(client.infer("tiny-en-de", [texts_input([text])]) for text in texts)
        )
        found = {
            "ready": await client.is_server_ready(),
            "TEXT": shown(whole.as_numpy("TEXT")),
            "each": [shown(result.as_numpy("TEXT"))[0] for result in each],
            "pieces": await pieces(client, texts[0]),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
