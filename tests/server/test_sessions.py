import onnxruntime
import pytest
from attendant_server.runtime.sessions import gpu_memory, open_session, use_gpu


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
