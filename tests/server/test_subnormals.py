"""Flushing of subnormal floats, on workers and on the threads of sessions."""

import platform
import subprocess
import sys
from threading import Thread

import numpy as np
import onnx
import pytest
from attendant_server.runtime.sessions import open_session
from attendant_server.system.subnormals import flush_subnormals
from onnx import TensorProto, helper

from tests.support.engines import TIMEOUT, new_engine, translate
from tests.support.fake_model import FakeTranslationModel

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) not in {("Linux", "x86_64"), ("Linux", "aarch64")},
    reason="subnormal floats are not flushed on this system",
)

NUM_VALUES = 4_000_000
"""Enough for ONNX Runtime to divide the work among threads."""
FIRST_SESSION = """
import sys
from pathlib import Path
from attendant_server.runtime.sessions import open_session
open_session(Path(sys.argv[1]), int(sys.argv[2]), "cpu")
print(5e-324 * 1.0 > 0)
"""


def smallest_normal_halved():
    return float((np.full(8, np.finfo(np.float32).tiny) * np.float32(0.5))[0])


@pytest.fixture(scope="module")
def halving(tmp_path_factory):
    """A graph that halves its input."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    node = helper.make_node("Mul", ["x", "half"], ["y"])
    graph = helper.make_graph([node], "halving", [x], [y], [half])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    path = tmp_path_factory.mktemp("halving") / "halving.onnx"
    onnx.save(model, path)
    return path


def on_a_thread(work):
    found = []
    thread = Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_that_flushes_subnormal_floats_leaves_others_as_they_are():
    def run():
        before = smallest_normal_halved()
        flush_subnormals()
        return before, smallest_normal_halved()

    before, after = on_a_thread(run)
    assert before > 0
    assert after == 0
    assert smallest_normal_halved() > 0


def test_workers_that_start_with_flushing_run_models_with_it():
    seen = []

    class ObservingModel(FakeTranslationModel):
        def before_step(self):
            seen.append(smallest_normal_halved())

    engine = new_engine(ObservingModel(), on_start=flush_subnormals)
    engine.start()
    call = translate()
    engine.submit("mt", call)
    call.future.result(TIMEOUT)
    assert engine.drain(TIMEOUT)
    assert set(seen) == {0.0}


def test_all_threads_of_a_session_flush_if_its_caller_does(halving):
    session = open_session(halving, 2, "cpu")
    values = np.full(NUM_VALUES, np.finfo(np.float32).tiny)

    def run():
        flush_subnormals()
        return session.run(["y"], {"x": values})[0]

    assert not on_a_thread(run).any()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_thread_that_opens_the_first_session_keeps_subnormal_floats(halving, num_threads):
    command = [sys.executable, "-c", FIRST_SESSION, halving, str(num_threads)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"
