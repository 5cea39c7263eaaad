"""Finds what each attention head of a model looks at, and draws the clearest heads.

    python examples/attention_heads.py --model en-de "The cat is sleeping on the sofa."

A head of the encoder or the decoder is named after the place that its tokens look at: the token
before, the token itself, the token after, or the first or the last token of the text. Its share is
the mean weight at that place. The clearest head of each kind is drawn.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from attendant_client import Attention, Client
from numpy.typing import NDArray

SHADES = " ░▒▓█"


def shares(weights: NDArray[np.float32]) -> dict[str, float]:
    """The mean weight (queries, keys) at each kind of place, over the queries that have one."""
    return {
        "the token before": float(np.diagonal(weights, -1).mean()),
        "itself": float(np.diagonal(weights).mean()),
        "the token after": float(np.diagonal(weights, 1).mean()),
        "the first token": float(weights[1:, 0].mean()),
        "the last token": float(weights[:-1, -1].mean()),
    }


def clearest(attention: NDArray[np.float32]) -> Iterator[tuple[str, float, int, int]]:
    """The kind, its share, the layer and the head of the clearest head of each kind."""
    layers, heads = attention.shape[:2]
    found = {
        (layer, head): shares(attention[layer, head])
        for layer in range(layers)
        for head in range(heads)
    }
    for kind in next(iter(found.values())):
        layer, head = max(found, key=lambda place: found[place][kind])
        yield kind, found[layer, head][kind], layer, head


def drawn(weights: NDArray[np.float32], labels: list[str]) -> Iterator[str]:
    """The lines of a map of weights, a block for each."""
    width = max(map(len, labels))
    for label, row in zip(labels, weights, strict=True):
        blocks = (SHADES[min(len(SHADES) - 1, int(weight * len(SHADES)))] * 2 for weight in row)
        yield f"{label:>{width}} {''.join(blocks).rstrip()}"


def show(name: str, attention: NDArray[np.float32], labels: list[str]) -> None:
    """Print the clearest heads of a network."""
    for kind, share, layer, head in clearest(attention):
        print(f"\n{name}, layer {layer + 1}, head {head + 1}: {kind} ({share:.0%})")
        print("\n".join(drawn(attention[layer, head], labels)))


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Names and draws attention heads.")
    parser.add_argument("text")
    parser.add_argument("--model", default="en-de")
    parser.add_argument("--target", default="localhost:50051")
    options = parser.parse_args()
    with Client(options.target) as client:
        found: Attention = client.attention(options.text, model=options.model)
    if found.encoder is not None:
        show("encoder", found.encoder, [token.text for token in found.source_tokens])
    if found.decoder is not None:
        print(f"\ntranslation: {found.target}")
        show("decoder", found.decoder, [token.text for token in found.decoder_tokens])


if __name__ == "__main__":
    main()
