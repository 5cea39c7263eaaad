"""Calls a server with the embedding classes of LangChain, Haystack and Hugging Face; prints JSON.

Usage: embedders.py ADDRESS TEXT...
"""

import json
import sys

from haystack.components.embedders import OpenAITextEmbedder
from haystack.utils import Secret
from huggingface_hub import InferenceClient
from langchain_openai import OpenAI, OpenAIEmbeddings
from pydantic import SecretStr


def main() -> None:
    """Make all calls."""
    address, *texts = sys.argv[1:]
    url = f"http://{address}"
    langchain = OpenAIEmbeddings(
        base_url=f"{url}/v1",
        api_key=SecretStr("none"),
        model="tiny-bert",
        check_embedding_ctx_length=False,  # otherwise it sends the token ids of another tokenizer
    )
    generator = OpenAI(
        base_url=f"{url}/v1", api_key=SecretStr("none"), model="tiny-lm", temperature=0,
        max_tokens=12,
    )  # fmt: skip
    haystack = OpenAITextEmbedder(
        api_key=Secret.from_token("none"), api_base_url=f"{url}/v1", model="tiny-bert"
    )
    face = InferenceClient(model=f"{url}/embed")
    found = {
        "langchain": langchain.embed_documents(texts),
        "langchain one": langchain.embed_query(texts[0]),
        "generated": generator.invoke("the old"),
        "streamed": list(generator.stream("the old")),
        "haystack": haystack.run(texts[0])["embedding"],
        "hugging face": face.feature_extraction(texts[0]).tolist(),
        "normalized": face.feature_extraction(texts[0], normalize=False).tolist(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
