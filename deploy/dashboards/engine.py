"""Inside the engine: tokens, queue, batches, KV slots, steps and memory of each model."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.boards import board
from deploy.dashboards.panels import (
    MODEL,
    MODEL_LEGEND,
    SERVER,
    Panel,
    Query,
    graph,
    mean,
    per_second,
    percentile_by,
    percentiles,
    rate,
)

BY_MODEL = "model, version"


def _sum(gauge: str, legend: str) -> Query:
    return Query(f"sum by ({BY_MODEL}) ({gauge}{{{MODEL}}})", legend)


def engine() -> Dashboard:
    """The dashboard for sizing and tuning."""
    return board(
        "attendant-engine",
        "attendant: engine",
        "Tokens, queue, batches, KV slots, steps and memory of each model.",
        {
            "Tokens": _tokens(),
            "Queue and texts": _queue(),
            "Decoding": _decoding(),
            "Encoding and scoring": _encoding(),
            "Memory": _memory(),
        },
    )


def _tokens() -> list[Panel]:
    return [
        graph(
            "Tokens a second",
            "Input and output tokens without padding. Lower than usual while the queue is not "
            "empty: the machine is slower, or other programs use its processors.",
            "suffix:tokens/s",
            rate("attendant_input_tokens_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} input"),
            rate("attendant_output_tokens_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} output"),
        ),
        graph(
            "Time per output token",
            "Mean time between the tokens of a call after its first token. It rises with the rows "
            "of a step. If it rises with few rows, embeddings or other programs use the "
            "processors.",
            "s",
            *percentiles("attendant_time_per_output_token_seconds", MODEL, 0.99, 0.5),
        ),
        graph(
            "Time to first token",
            "From admission to the first token of any text of a call. High with a short queue: "
            "large encoder batches; high with a long queue: overload.",
            "s",
            *percentiles("attendant_time_to_first_token_seconds", MODEL, 0.99, 0.5),
        ),
    ]


def _queue() -> list[Panel]:
    return [
        graph(
            "Texts in the queue",
            "Admitted texts that no model run has taken yet, and the limit. A line that keeps "
            "rising: texts arrive faster than they are processed, and calls will be refused.",
            "none",
            _sum("attendant_queued_texts", f"{MODEL_LEGEND} queued"),
            _sum("attendant_max_queued_texts", f"{MODEL_LEGEND} limit"),
        ),
        graph(
            "Time in the queue",
            "Time from admission until a model run takes the first text of a call. Above the time "
            "of a few steps: calls wait for free slots.",
            "s",
            *percentiles("attendant_queue_seconds", MODEL, 0.99, 0.5),
        ),
        graph(
            "Truncated, invalid and dropped texts",
            "truncated: longer than the model's limit, so the end is lost; invalid: refused as bad "
            "input; dropped: cancelled, expired or failed. The usual cause of a rise is a changed "
            "caller.",
            "cps",
            rate("attendant_truncated_texts_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} truncated"),
            rate("attendant_invalid_texts_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} invalid"),
            rate("attendant_dropped_texts_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} dropped"),
            soft_max=1,
        ),
    ]


def _decoding() -> list[Panel]:
    saturated_rows = per_second("attendant_saturated_step_rows_total", MODEL, BY_MODEL)
    places = per_second("attendant_saturated_step_max_rows_total", MODEL, BY_MODEL)
    return [
        graph(
            "Time of a step",
            "A step decodes one token for each running row of a worker, or two in greedy search. "
            "Its time grows with the rows. If it grows without more rows, other programs use the "
            "processors.",
            "s",
            *percentiles("attendant_step_seconds", MODEL, 0.99, 0.5),
        ),
        graph(
            "Rows in a step",
            "Mean rows of a decoding step, and the limit. A greedy search takes one row, a beam "
            "search one row per beam. Near one under load: calls arrive one after the other.",
            "none",
            mean("attendant_step_rows", MODEL, BY_MODEL, f"{MODEL_LEGEND} mean"),
            Query(
                f"max by ({BY_MODEL}) (attendant_max_step_rows{{{MODEL}}})", f"{MODEL_LEGEND} limit"
            ),
        ),
        graph(
            "Batch fill while texts wait",
            "Share of a step's rows in use, over steps that began while texts waited. A step with "
            "the maximum number of sentences counts as full. Below 80 % while a queue lasts: wide "
            "beams leave too few free rows for the next text. A low value without a queue is "
            "normal.",
            "percentunit",
            Query(f"{saturated_rows} / {places}", MODEL_LEGEND),
            soft_max=1,
        ),
        graph(
            "KV slots",
            "Rows in use, and the limit. Texts wait when all rows or all sentences (next panel) "
            "are in use, which is normal under load. If the time in the queue is too long, add "
            "servers.",
            "none",
            _sum("attendant_rows_used", f"{MODEL_LEGEND} used"),
            _sum("attendant_max_rows", f"{MODEL_LEGEND} limit"),
        ),
        graph(
            "Sentences being decoded",
            "Texts that hold rows, and the limit. Far fewer sentences than rows: callers use wide "
            "beams, and each beam takes a row.",
            "none",
            _sum("attendant_active_sentences", f"{MODEL_LEGEND} active"),
            _sum("attendant_max_active_sentences", f"{MODEL_LEGEND} limit"),
        ),
        graph(
            "Steps a second",
            "Decoding steps of all workers. Zero while texts wait: the engine has stalled; see the "
            "alert AttendantStalled.",
            "cps",
            rate("attendant_step_seconds_count", MODEL, BY_MODEL, MODEL_LEGEND),
        ),
    ]


def _encoding() -> list[Panel]:
    padding = []
    for run, kind in (("encode", "encoded"), ("score", "scored")):
        tokens, padded_tokens = (
            per_second(f"attendant_{run}_batch_{what}_total", MODEL, BY_MODEL)
            for what in ("tokens", "padded_tokens")
        )
        padding.append(Query(f"1 - {tokens} / {padded_tokens}", f"{MODEL_LEGEND} {kind}"))
    return [
        graph(
            "p99 of a batch",
            "Runs of encoders, embedding models and scorers. A worker decodes nothing during such "
            "a run, so long runs interrupt streams.",
            "s",
            percentile_by(
                "attendant_encode_batch_seconds", MODEL, 0.99, BY_MODEL, f"{MODEL_LEGEND} encode"
            ),
            percentile_by(
                "attendant_score_batch_seconds", MODEL, 0.99, BY_MODEL, f"{MODEL_LEGEND} score"
            ),
        ),
        graph(
            "Texts in a batch",
            "Mean number of texts in a run of an encoder, embedding model or scorer. Near one "
            "under load: calls bring single texts one after the other, which is the least "
            "efficient load.",
            "none",
            mean("attendant_encode_batch_texts", MODEL, BY_MODEL, f"{MODEL_LEGEND} encode"),
            mean("attendant_score_batch_texts", MODEL, BY_MODEL, f"{MODEL_LEGEND} score"),
        ),
        graph(
            "Padding",
            "Share of padding among the tokens of a run. High: batches mix short and long texts; "
            "let callers send texts of similar length in one call.",
            "percentunit",
            *padding,
            soft_max=1,
        ),
    ]


def _memory() -> list[Panel]:
    return [
        graph(
            "Memory",
            "Memory that counts towards the limit, and the limit. When the limit is reached, the "
            "kernel kills the server and all its calls fail.",
            "bytes",
            Query(f"attendant_memory_used_bytes{{{SERVER}}}", "{{instance}} used"),
            Query(f"attendant_memory_limit_bytes{{{SERVER}}}", "{{instance}} limit"),
            Query(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}} process"),
        ),
        graph(
            "Caches",
            "Memory of the caches, the part that the running sentences need, and the limit. The "
            "limit must fit under the memory limit beside weights and activations. At the limit, "
            "sentences wait.",
            "bytes",
            Query(
                f"sum by (instance, {BY_MODEL}) (attendant_cache_needed_bytes{{{MODEL}}})",
                f"{{{{instance}}}} {MODEL_LEGEND} needed",
            ),
            Query(
                f"sum by (instance, {BY_MODEL}) (attendant_cache_bytes{{{MODEL}}})",
                f"{{{{instance}}}} {MODEL_LEGEND}",
            ),
            Query(
                f"sum by (instance, {BY_MODEL}) (attendant_max_cache_bytes{{{MODEL}}})",
                f"{{{{instance}}}} {MODEL_LEGEND} limit",
            ),
        ),
        graph(
            "Memory of the GPU",
            "GPU memory in use by all programs, and the total; empty without a GPU. When the total "
            "is reached, model runs fail: lower max_device_memory_bytes or max_rows.",
            "bytes",
            Query(f"attendant_device_memory_used_bytes{{{SERVER}}}", "{{instance}} used"),
            Query(f"attendant_device_memory_bytes{{{SERVER}}}", "{{instance}} total"),
        ),
    ]
