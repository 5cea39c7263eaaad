import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server import loading
from attendant_server.runtime.device_models import DeviceTranslationModel

from tests.support.bundles import sentence_pairs
from tests.support.devices import open_device
from tests.support.serving import TIMEOUT_SECONDS, Running


def translations(server: Running, seed: int) -> list[list[str]]:
    """A server's answers to many concurrent calls of several beam sizes and lengths."""
    rng = random.Random(seed)
    calls = []
    for english, _ in sentence_pairs()[:48]:
        request = TranslateRequest(texts=[english])
        request.options.max_output_tokens = rng.randint(2, 40)
        request.options.beam_size = rng.choice([1, 1, 2, 4])
        calls.append(server.translation.Translate.future(request, timeout=60))
    return [[r.hypotheses[0].text for r in call.result().translations] for call in calls]


def test_a_server_whose_caches_are_on_a_device_answers_as_one_with_caches_on_the_host(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
):
    expected = translations(start(precision="fp16", max_rows=16), seed=3)
    monkeypatch.setattr(loading, "OnnxTranslationModel", DeviceTranslationModel)
    server = start(precision="fp16", max_rows=16)
    assert translations(server, seed=3) == expected
    used = server.metric("attendant_cache_bytes")
    assert 0 < used <= server.metric("attendant_max_cache_bytes")


@pytest.mark.gpu
def test_a_server_on_a_gpu_translates(start: Callable[..., Running]):
    open_device("cuda")
    server = start(device="cuda", precision="fp16")
    assert all(text for [text] in translations(server, seed=3))
    assert server.metric("attendant_device_memory_used_bytes") > 0


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="has CUDA"
)
def test_asking_for_a_gpu_where_there_is_none_ends_the_start_with_the_reason(bundles: Path):
    flags = ["--device", "cuda", "--bundles", str(bundles), "--port", "0", "--metrics-port", "0"]
    command = [sys.executable, "-m", "attendant_server", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert ended.returncode == 1
    assert "event=start_failed device cuda: this build of ONNX Runtime has no CUDA" in ended.stderr
    assert "Traceback" not in ended.stderr
