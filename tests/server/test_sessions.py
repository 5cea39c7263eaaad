import threading

import numpy as np
import onnx
import onnxruntime
import pytest
from attendant_server.runtime.sessions import gpu_memory, open_session, use_gpu
from onnx import TensorProto, helper


class FakeCuda:
    def __init__(self, code=0):
        self.code = code

    def cudaMemGetInfo(self, free, total):
        free._obj.value, total._obj.value = 10, 80
        return self.code


def test_the_memory_in_use_is_what_is_not_free(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: FakeCuda())
    assert gpu_memory() == (70, 80)


def test_an_error_of_cuda_is_raised(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: FakeCuda(code=2))
    with pytest.raises(RuntimeError, match="error 2"):
        gpu_memory()


def test_a_gpu_is_refused_where_onnx_runtime_has_no_cuda(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeError, match="install the extra"):
        use_gpu(0)


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_session_that_would_fall_back_to_the_cpu_is_refused(translation_bundle):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("has CUDA")
    with pytest.raises(RuntimeError, match="cannot use a GPU"):
        open_session(translation_bundle / "encoder.fp16.onnx", 1, "cuda")


def test_a_run_that_never_ends_is_stopped_and_the_session_works_again(tmp_path):
    """A loop of 2^62 iterations, or of as many as the input says."""

    def value(name, kind):
        return helper.make_tensor_value_info(name, kind, [])

    number, flag = TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Neg", ["x"], ["y"])],
        "body",
        [value("i", number), value("on", flag), value("x", number)],
        [value("still", flag), value("y", number)],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "", "count"], ["out"], body=body)],
        "endless",
        [value("count", number)],
        [value("out", number)],
    )
    path = tmp_path / "endless.onnx"
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, path)
    session = open_session(path, 1, "cpu")
    threading.Timer(0.2, session.stop_runs).start()
    with pytest.raises(Exception, match="terminate flag"):
        session.run(["out"], {"count": np.array(2**62)})
    (out,) = session.run(["out"], {"count": np.array(3)})
    assert out == -3
