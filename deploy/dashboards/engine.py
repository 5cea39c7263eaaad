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
    """The dashboard for those who size and tune."""
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
            "Tokens read and written, padding not counted. Lower than usual with a queue that is "
            "not empty: the machine has become slower, or shares its processors.",
            "suffix:tokens/s",
            rate("attendant_input_tokens_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} read"),
            rate("attendant_output_tokens_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} written"),
        ),
        graph(
            "Time per output token",
            "Pace of a call's translation after its first token. It rises with the rows of a step; "
            "if it rises with few rows, embeddings or other programs take the processors.",
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
            "Texts that wait",
            "Texts admitted and not yet taken up, and how many may wait. A line that only rises: "
            "more comes in than goes out, and refusals follow.",
            "none",
            _sum("attendant_queued_texts", f"{MODEL_LEGEND} wait"),
            _sum("attendant_max_queued_texts", f"{MODEL_LEGEND} may wait"),
        ),
        graph(
            "Time in the queue",
            "From admission until a model run takes up a call's first text. Above the time of a "
            "few steps, callers wait for places and not for work.",
            "s",
            *percentiles("attendant_queue_seconds", MODEL, 0.99, 0.5),
        ),
        graph(
            "Texts cut, bad or dropped",
            "cut: longer than the model takes, so their ends are lost; bad: could not be read; "
            "dropped: cancelled, expired or failed. A rise is most often a caller that has "
            "changed.",
            "cps",
            rate("attendant_truncated_texts_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} cut"),
            rate("attendant_invalid_texts_total", MODEL, BY_MODEL, f"{MODEL_LEGEND} bad"),
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
            "One token for each running row of a worker, two in greedy search. It grows with the "
            "rows; if it grows while they do not, the processors are shared with something else.",
            "s",
            *percentiles("attendant_step_seconds", MODEL, 0.99, 0.5),
        ),
        graph(
            "Rows in a step",
            "Mean rows of a decoding step, and how many one step can have. Greedy searches are as "
            "many as sentences may be, beams several rows each. Near one under load: calls arrive "
            "one after the other.",
            "none",
            mean("attendant_step_rows", MODEL, BY_MODEL, f"{MODEL_LEGEND} mean"),
            Query(
                f"max by ({BY_MODEL}) (attendant_max_step_rows{{{MODEL}}})", f"{MODEL_LEGEND} most"
            ),
        ),
        graph(
            "Batch fill while texts wait",
            "Rows used of those that a step had places for, when it began while texts waited; all, "
            "if it had as many sentences as it may. Below 80 % while a queue lasts: wide beams "
            "leave places that do not fit. With hardly a queue it is low, and no fault.",
            "percentunit",
            Query(f"{saturated_rows} / {places}", MODEL_LEGEND),
            soft_max=1,
        ),
        graph(
            "KV slots",
            "Rows that are being decoded, and all there are. Texts wait when rows or sentences "
            "(the next panel) are all in use, which is normal under load; the time in the queue "
            "says how long. Too long: add servers.",
            "none",
            _sum("attendant_rows_used", f"{MODEL_LEGEND} used"),
            _sum("attendant_max_rows", f"{MODEL_LEGEND} all"),
        ),
        graph(
            "Sentences being decoded",
            "Texts that hold rows, and how many may at a time. Many fewer than the rows in use: "
            "callers search with wide beams, which cost a row each.",
            "none",
            _sum("attendant_active_sentences", f"{MODEL_LEGEND} decoded"),
            _sum("attendant_max_active_sentences", f"{MODEL_LEGEND} all"),
        ),
        graph(
            "Steps a second",
            "Decoding steps of all workers. Zero while texts wait means that the engine stands "
            "still: see the alert AttendantStalled.",
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
            "Runs of encoders, embedding models and scorers. While one runs, its worker decodes "
            "nothing: long ones make streams halt.",
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
            "Mean texts of such a run. Near one under load: calls bring single texts one after "
            "the other, which costs the most for each.",
            "none",
            mean("attendant_encode_batch_texts", MODEL, BY_MODEL, f"{MODEL_LEGEND} encode"),
            mean("attendant_score_batch_texts", MODEL, BY_MODEL, f"{MODEL_LEGEND} score"),
        ),
        graph(
            "Padding",
            "Share of the tokens in a run that are padding. High: short and long texts come "
            "together; let callers send texts of similar length in one call.",
            "percentunit",
            *padding,
            soft_max=1,
        ),
    ]


def _memory() -> list[Panel]:
    return [
        graph(
            "Memory",
            "What counts against the limit, and the limit. When they meet, the kernel kills the "
            "server and all calls in it.",
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
            "In use by any process, and all there is; empty without a GPU. When they meet, model "
            "runs fail: lower max_device_memory_bytes or max_rows.",
            "bytes",
            Query(f"attendant_device_memory_used_bytes{{{SERVER}}}", "{{instance}} used"),
            Query(f"attendant_device_memory_bytes{{{SERVER}}}", "{{instance}} all"),
        ),
    ]
