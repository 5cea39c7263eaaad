"""Calls a server with the package openai, blocking and asyncio; prints JSON.

Usage: openai_client.py ADDRESS TEXT...
"""

import asyncio
import json
import sys
from typing import Any

import openai

PROMPT = "the old"


def blocking(address: str, texts: list[str]) -> dict[str, Any]:
    """Make all calls, one after the other."""
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
    # Without encoding_format, the package asks for base64 and decodes it.
    answer = client.embeddings.create(model="tiny-bert", input=texts)
    plain = client.embeddings.create(model="tiny-bert", input=texts, encoding_format="float")
    whole = client.completions.create(model="tiny-lm", prompt=PROMPT, temperature=0, max_tokens=12)
    pieces = client.completions.create(
        model="tiny-lm", prompt=PROMPT, temperature=0, max_tokens=12, stream=True
    )
    failures = {}
    for name, model in (("unknown model", "none"), ("wrong kind", "tiny-lm")):
        try:
            client.embeddings.create(model=model, input="a")
        except openai.APIStatusError as error:
            failures[name] = [type(error).__name__, error.code, error.param]
    return {
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve("tiny-bert/1").id,
        "vectors": [each.embedding for each in answer.data],
        "plain": [each.embedding for each in plain.data],
        "num_tokens": answer.usage.total_tokens,
        "whole": whole.choices[0].text,
        "reason": whole.choices[0].finish_reason,
        "pieces": [piece.choices[0].text for piece in pieces],
        "failures": failures,
    }


async def later(address: str, texts: list[str]) -> dict[str, Any]:
    """Make calls together."""
    client = openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
    answers = await asyncio.gather(
        *(client.embeddings.create(model="tiny-bert", input=text) for text in texts)
    )
    pieces = await client.completions.create(
        model="tiny-lm", prompt=PROMPT, temperature=0, max_tokens=12, stream=True
    )
    return {
        "vectors": [answer.data[0].embedding for answer in answers],
        "pieces": [piece.choices[0].text async for piece in pieces],
    }


def main() -> None:
    """Make all calls."""
    address, *texts = sys.argv[1:]
    print(json.dumps(blocking(address, texts) | {"asyncio": asyncio.run(later(address, texts))}))


if __name__ == "__main__":
    main()
