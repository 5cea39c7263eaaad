"""Stage "profile": where the time of a decoding step goes.

The step graph alone, without a server: the time of a run, its kernels and copies as CUDA reports
them, its operators as ONNX Runtime reports them, and runs replayed as CUDA graphs. Then a server
under load: the time of its steps beside that of the graph alone is what the engine adds, and the
same again with the busiest thread of the server on a processor of its own.
"""

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.gpu.models import PRECISION, TRANSLATION, made_bundle
from bench.gpu.speed import FLAGS, measure_saturated
from bench.gpu.step_runs import StepRuns
from bench.gpu.trial import FOLDER, Figures, Trial, rounded
from bench.servers import RunningServer, flags_for, running_server

SHAPES = ((1, 1), (64, 1), (512, 1), (512, 4))
"""The steps that are measured: rows, and rows for each source."""
PROFILED_ROWS = 512
NUM_SHOWN = 8
"""How many kernels or operators a line names, those that take the most time."""


def run(trial: Trial) -> None:
    """Measure the step graph alone, then a server."""
    bundle = made_bundle(trial, TRANSLATION)
    shapes = trial.pick(SHAPES, ((4, 2),))
    for num_rows, width in shapes:
        name = f"step alone, {num_rows} rows, {width} for each source"
        trial.part(name, measure_step, trial, bundle, num_rows, width)
    trial.part("kernels and copies", measure_kernels, trial, bundle)
    trial.part("operators", measure_operators, trial, bundle)
    for num_rows, width in shapes:
        name = f"step as a CUDA graph, {num_rows} rows, {width} for each source"
        trial.part(name, measure_cuda_graph, trial, bundle, num_rows, width)
    trial.part("server", measure_server, trial, bundle)


def _step(trial: Trial, bundle: Path, num_rows: int, width: int = 1, **options: Any) -> StepRuns:
    return StepRuns(bundle, PRECISION, trial.device, num_rows, width=width, **options)


def measure_step(trial: Trial, bundle: Path, num_rows: int, width: int) -> Figures:
    """Milliseconds of a step alone, and rows per second."""
    return _timed(trial, _step(trial, bundle, num_rows, width).run, num_rows)


def measure_cuda_graph(trial: Trial, bundle: Path, num_rows: int, width: int) -> Figures:
    """`measure_step` with runs that are captured once and replayed."""
    step = _step(trial, bundle, num_rows, width, with_cuda_graphs=not trial.is_smoke)
    return _timed(trial, step.run, num_rows)


def _timed(trial: Trial, work: Callable[[], None], num_rows: int) -> Figures:
    seconds = []
    for _ in range(trial.pick(120, 4)):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[len(seconds) // 6 :])  # without the first, which warm up
    return {
        "median_milliseconds": rounded(1e3 * median),
        "best_milliseconds": rounded(1e3 * min(seconds)),
        "rows_per_second": rounded(num_rows / median),
    }


def measure_kernels(trial: Trial, bundle: Path) -> Figures:
    """Kernels and copies of a step, counted and timed by CUDA's own profiler."""
    if trial.is_smoke:
        return {"skipped": "only on a GPU"}
    import torch
    from torch.profiler import ProfilerActivity, profile

    # The profiler needs a CUDA context; it then records the whole process.
    torch.zeros(1, device="cuda")
    step = _step(trial, bundle, PROFILED_ROWS)
    num_runs = 20
    for _ in range(num_runs):
        step.run()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        for _ in range(num_runs):
            step.run()
        seconds = time.perf_counter() - started
    path = FOLDER / "trace.json"
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return {
        "run_microseconds": round(1e6 * seconds / num_runs),
        **added_up(events, num_runs),
    }


def added_up(events: list[dict[str, Any]], num_runs: int) -> Figures:
    """Numbers and microseconds of kernels, copies and calls of CUDA for each run, from a trace."""
    timed = [event for event in events if "dur" in event]
    kernels = [event for event in timed if event.get("cat") == "kernel"]
    copies = [event for event in timed if str(event.get("cat", "")).startswith("gpu_mem")]
    launches = [event for event in timed if event.get("cat") == "cuda_runtime"]
    by_name: Counter[str] = Counter()
    for event in kernels:
        by_name[str(event["name"])[:60]] += event["dur"]
    return {
        "num_kernels": rounded(len(kernels) / num_runs),
        "kernel_microseconds": _microseconds(kernels, num_runs),
        "num_copies": rounded(len(copies) / num_runs),
        "copy_microseconds": _microseconds(copies, num_runs),
        "num_cuda_calls": rounded(len(launches) / num_runs),
        "cuda_call_microseconds": _microseconds(launches, num_runs),
        "longest": {name: round(t / num_runs, 1) for name, t in by_name.most_common(NUM_SHOWN)},
    }


def _microseconds(events: list[dict[str, Any]], num_runs: int) -> float:
    return round(sum(float(event["dur"]) for event in events) / num_runs, 1)


def measure_operators(trial: Trial, bundle: Path) -> Figures:
    """Operators of a step by the time that the host spends on each, as ONNX Runtime reports it."""
    num_runs, num_rows = trial.pick(20, 2), trial.pick(PROFILED_ROWS, 4)
    FOLDER.mkdir(parents=True, exist_ok=True)
    step = _step(trial, bundle, num_rows, profile=FOLDER / "step")
    for _ in range(num_runs):
        step.run()
    path = Path(step.session.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    by_name: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            by_name[event["args"]["op_name"]] += event["dur"]
    longest = by_name.most_common(NUM_SHOWN)
    return {
        "host_microseconds": round(sum(by_name.values()) / num_runs),
        "longest": {name: round(microseconds / num_runs) for name, microseconds in longest},
    }


def measure_server(trial: Trial, bundle: Path) -> Figures:
    """Report a saturated server, then the same with its busiest thread pinned."""
    flags = [*flags_for(bundle), f"--device={trial.device}", f"--precision={PRECISION}"]
    rows = trial.pick(PROFILED_ROWS, 16)
    with running_server(*flags, *trial.pick(FLAGS, ()), f"--max-rows={rows}") as server:
        for name, pinned in (("any processor", False), ("its own processor", True)):
            trial.part(f"server, engine on {name}", _saturated, trial, server, pinned)
    return {}


def _saturated(trial: Trial, server: RunningServer, is_pinned: bool) -> Figures:
    if not is_pinned:
        return measure_saturated(trial, server, 1, 0.0)
    with _pinned_engine(server.pid):
        return measure_saturated(trial, server, 1, 0.0)


@contextmanager
def _pinned_engine(pid: int) -> Iterator[None]:
    """The engine's thread of a server has a processor of its own while the block runs.

    It is the busiest thread besides the first, which runs the event loop. Raises RuntimeError if
    there is only one processor.
    """
    processors = os.sched_getaffinity(pid)
    if len(processors) < 2:
        raise RuntimeError("there is only one processor")
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    engine = max((thread for thread in threads if thread != pid), key=lambda t: _ticks(pid, t))
    own = {max(processors)}
    try:
        for thread in threads:
            os.sched_setaffinity(thread, own if thread == engine else processors - own)
        yield
    finally:
        for thread in threads:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, processors)


def _ticks(pid: int, thread: int) -> int:
    """Processor time of a thread so far."""
    # The name, which may hold spaces, ends at the last bracket.
    fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
