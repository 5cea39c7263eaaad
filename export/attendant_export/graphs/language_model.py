"""Prefill and scorer of a causal language model. `steps` has its step graphs.

Defines their inputs and outputs. The layers that it is given determine the precision.
"""

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Attention

from attendant_export.graphs.attention import relative_bias
from attendant_export.graphs.embeddings import target_embeddings
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.packing import Packing
from attendant_export.graphs.parts import in_parts
from attendant_export.graphs.stack import final_norm, run_stack
from attendant_export.graphs.step_interface import past_names
from attendant_export.graphs.translation import decode_targets, target_inputs, target_scores
from attendant_export.models.attention import num_key_value_heads


def build_prefill(g: Layers, architecture: Architecture) -> None:
    """Token ids of prompts to the keys and values of every layer, as steps keep them for a row.

    Prompts may have no tokens. What follows the last token of a prompt is undefined.
    """
    source = g.input("source", np.int64, "batch", "source")
    lengths = g.input("source_lengths", np.int64, "batch")
    num_columns = g.op("Shape", source, start=1, end=2)
    one = g.integers(1)
    # Each text is read as if it had a token.
    missing = g.op("Max", g.op("Sub", one, num_columns), g.integers(0))
    wider = g.op("Pad", source, g.op("Concat", g.integers(0, 0, 0), missing, axis=0))
    batch = g.op("Shape", wider)
    packing = Packing(g, batch, g.op("Max", lengths, one))
    stack = architecture.decoder
    embedded = packing.pack(g.flat(wider))
    x = target_embeddings(architecture).run(g, embedded, packing.add_positions)
    bias = relative_bias(g, stack, "decoder_relative_positions", batch)

    def attend(layer: int, part: Attention, query_key_value: str) -> str:
        def give(keys: str, values: str) -> None:
            for name, x in zip(past_names(layer), (keys, values), strict=True):
                _give_heads(g, part, name, x, num_columns)

        return packing.attend(layer, part, query_key_value, bias, on_keys_values=give)

    # No runtime computes what follows the keys and values of the last layer.
    *_, x = run_stack(g, stack, "decoder", x, attend)


def _give_heads(g: Layers, part: Attention, name: str, x: str, num_columns: str) -> None:
    """Declare ``x`` (batch, length, width) without columns that were added, by heads."""
    heads = num_key_value_heads(part)
    columns = g.op("Slice", x, g.integers(0), num_columns, g.integers(1))
    split = g.op("Reshape", columns, g.integers(0, 0, heads, part.head_dim))
    by_head = g.op("Transpose", split, perm=(0, 2, 1, 3))
    g.output(name, by_head, g.dtype, "batch", heads, "source", part.head_dim)


def build_text_scorer(g: Layers, architecture: Architecture) -> None:
    """Log-probabilities of the tokens ``target_out`` after the tokens ``target_in``.

    Texts may be long, so a loop computes the scores of the vocabulary for some tokens at a time.
    """
    target_in, target_out = target_inputs(g)
    x = decode_targets(g, architecture, target_in, None)
    x = final_norm(g, architecture.decoder, "decoder", x)
    chosen = g.op("Reshape", target_out, g.integers(-1))
    num_rows = g.op("Shape", chosen)
    vocab_size = architecture.target_embeddings.vocab_size
    rows = in_parts(g, g.integers(1), num_rows, vocab_size)
    body = _log_probabilities_of_rows(g, architecture, x, chosen, num_rows)
    found = g.op("Reshape", g.each_result(body, rows), g.integers(-1))
    found = g.op("Slice", found, g.integers(0), num_rows)
    result = g.op("Reshape", found, g.op("Shape", target_in))
    g.output("log_probabilities", result, np.float32, "batch", "target")


def _log_probabilities_of_rows(
    g: Layers, architecture: Architecture, x: str, chosen: str, num_rows: str
) -> Layers:
    """Maps numbers of rows of ``x`` (rows, d_model) to log-probabilities of ``chosen`` (rows).

    Rows after the last one repeat it.
    """
    body = g.body("log_probabilities_of_rows")
    rows = body.input("numbers", np.int64, "size")
    rows = body.op("Min", rows, body.op("Sub", num_rows, body.integers(1)))
    scores = target_scores(body, architecture, body.op("Gather", x, rows))
    log_p = body.op("LogSoftmax", scores)  # (size, vocab)
    tokens = body.op("Unsqueeze", body.op("Gather", chosen, rows), body.integers(1))
    found = body.op("GatherElements", log_p, tokens, axis=1)
    found = body.op("Squeeze", found, body.integers(1))
    body.output("log_probabilities_of_numbers", found, np.float32, "size")
    return body
