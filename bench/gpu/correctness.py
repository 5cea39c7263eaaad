"""Stage "correctness": whether a GPU gives the answers of the CPU, also in a busy server.

Each graph in fp16 on the GPU is compared with the CPU: fp32 for the exported models, fp16 for the
built-in ones, which have no fp32. Meanwhile, the tests marked ``gpu`` run in the background.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from attendant_client import Client

from bench.gpu import parity, pressure
from bench.gpu.made_texts import made_up_texts
from bench.gpu.models import (
    EMBEDDING,
    PRECISION,
    TRANSLATION,
    carried_bundles,
    made_bundle,
)
from bench.gpu.trial import FOLDER, Figures, Trial
from bench.graphs import most_precise, read_manifest
from bench.quality.invariance import measure_invariance
from bench.servers import flags_for, running_server

GPU_TESTS = (
    "tests/server/test_host_cache.py",
    "tests/server/test_runtime_models.py",
    "tests/e2e/test_device.py",
)
"""All files with tests that need a GPU."""
TEST_SECONDS = 40.0
"""Further time for the tests once the models are compared."""
BEAMS = (1, 4)


def run(trial: Trial) -> None:
    """Compare all models with the CPU, then put one server under pressure."""
    with _tests(trial) as tests:
        for bundle in carried_bundles():
            texts = _real_texts(bundle)[: trial.pick(None, 2)]
            trial.part(f"servers of {bundle}", compare_bundle, trial, bundle, texts)
        if not trial.is_smoke:
            for name in (TRANSLATION, EMBEDDING):
                trial.part(f"servers of {name}", compare_made, trial, name, made_up_texts(64))
        if tests is not None:
            trial.part("tests marked gpu", _results, trial, *tests)
        trial.part("server under pressure", press, trial)
        trial.part("end of memory", end_memory, trial)


def compare_made(trial: Trial, name: str, texts: Sequence[str]) -> Figures:
    """`compare_bundle` of an exported model."""
    return compare_bundle(trial, made_bundle(trial, name), texts)


def compare_bundle(trial: Trial, bundle: Path, texts: Sequence[str]) -> Figures:
    """Report what a server on the device and one on the CPU answer to the same calls."""
    name = bundle.parent.name
    with _two_servers(trial, bundle) as pair:
        if read_manifest(bundle).HasField("decoding"):
            _compare_translator(trial, name, pair, texts, _bound(bundle))
        else:
            trial.part(f"embedder {name}", parity.compare_embeddings, pair, texts)
            trial.part(f"masked tokens {name}", parity.compare_masks, pair, texts)
            trial.part(f"attention {name}", parity.compare_attention, pair, texts[:4], name, False)
    return {}


def _real_texts(bundle: Path) -> list[str]:
    """The texts of a bundle's reference outputs that have several words."""
    content = json.loads((bundle / "reference_outputs.json").read_text(encoding="utf-8"))
    texts = [text["text"] for text in content["texts"]]
    return [text for text in texts if len(text.split()) > 2]


def _compare_translator(
    trial: Trial, name: str, pair: parity.Pair, texts: Sequence[str], bound: float
) -> None:
    for beam_size in BEAMS:
        trial.part(
            f"translation {name} beam {beam_size}",
            *(parity.compare_translations, pair, texts, bound, beam_size),
        )
    trial.part(f"scorer {name}", parity.compare_scores, pair, texts)
    trial.part(f"aligner {name}", parity.compare_alignments, pair, texts)
    trial.part(f"attention {name}", parity.compare_attention, pair, texts[:4], name)


@contextmanager
def _two_servers(trial: Trial, bundle: Path) -> Iterator[parity.Pair]:
    """Clients of a server on the device and of one on the CPU with the most precise graphs."""
    precise = most_precise(read_manifest(bundle))
    kinds = ((trial.device, PRECISION), ("cpu", precise))
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                running_server(*flags_for(bundle), f"--device={device}", f"--precision={precision}")
            )
            for device, precision in kinds
        ]
        ours, theirs = (
            stack.enter_context(Client(server.target, timeout_seconds=120)) for server in servers
        )
        yield ours, theirs


def _bound(bundle: Path) -> float:
    """The bound of log-probabilities in fp16 that the bundle states."""
    precisions = read_manifest(bundle).parity.precisions
    (found,) = (each for each in precisions if each.precision == PRECISION)
    return found.log_probability_bound


def press(trial: Trial) -> Figures:
    """Report on one server with many callers."""
    flags = _translation_flags(trial)
    num_callers = trial.pick(256, 4)
    texts = made_up_texts(trial.pick(256, 4), trial.pick(0, 3))
    with running_server(*flags) as server:
        for beam_size in trial.pick(BEAMS, (4,)):
            trial.part(
                f"alone against {num_callers} callers, beam {beam_size}",
                # Fewer texts for wide beams, which take too much time with a single caller.
                *(_invariance, server.target, texts[::beam_size], beam_size, num_callers),
            )
        waiting = trial.pick(pressure.RELEASE_SECONDS, 0.0)
        trial.part("caches", pressure.measure_caches, server, texts, num_callers, waiting)
        trial.part("cancelled calls", pressure.measure_cancelled_calls, server, texts, num_callers)
    return {}


def _invariance(target: str, texts: Sequence[str], beam_size: int, num_callers: int) -> Figures:
    with Client(target, timeout_seconds=120) as client:
        return measure_invariance(client, texts, beam_size, "", num_callers)


def end_memory(trial: Trial) -> Figures:
    """Flood a server whose caches may take more memory than there is."""
    texts = made_up_texts(trial.pick(1024, 4), trial.pick(60, 3))
    callers = trial.pick(512, 4)
    return pressure.measure_end_of_memory(trial, _translation_flags(trial), texts, callers)


def _translation_flags(trial: Trial) -> list[str]:
    bundle = made_bundle(trial, TRANSLATION)
    flags = [*flags_for(bundle), f"--device={trial.device}", f"--precision={PRECISION}"]
    return [*flags, f"--max-rows={trial.pick(1024, 16)}", "--max-encode-tokens=4096"]


@contextmanager
def _tests(trial: Trial) -> Iterator["tuple[subprocess.Popen[bytes], IO[bytes]] | None"]:
    """The tests marked gpu, in another process, which ends with the block.

    None in smoke tests, and if the tests were not carried.
    """
    if trial.is_smoke or not Path(GPU_TESTS[0]).exists():
        yield None
        return
    # Packages of that machine may warn where ours do not.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    command += ["-o", "filterwarnings=default", *GPU_TESTS]
    with (
        (FOLDER / "tests.log").open("w+b") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process, log
        finally:
            process.kill()


def _results(trial: Trial, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> Figures:
    """The result of the tests once they have ended, or how far they have come."""
    try:
        process.wait(min(TEST_SECONDS, max(1.0, trial.left() - 2)))
        ended = f"exit code {process.returncode}"
    except subprocess.TimeoutExpired:
        ended = f"not within {TEST_SECONDS:.0f} s more"
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    failed = [line for line in lines if re.match(r"(FAILED|ERROR) ", line)]
    return {"ended": ended, "last": lines[-1:], "failed": failed[:20]}
