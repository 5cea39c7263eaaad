"""Flushing of subnormal floats on workers."""

import platform
from threading import Thread

import numpy as np
import pytest
from attendant_server.system.subnormals import flush_subnormals

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) not in {("Linux", "x86_64"), ("Linux", "aarch64")},
    reason="subnormal floats are not flushed on this system",
)


def smallest_normal_halved():
    return float((np.full(8, np.finfo(np.float32).tiny) * np.float32(0.5))[0])


def test_a_thread_that_flushes_subnormal_floats_leaves_others_as_they_are():
    found = []

    def run():
        found.append(smallest_normal_halved())
        flush_subnormals()
        found.append(smallest_normal_halved())

    thread = Thread(target=run)
    thread.start()
    thread.join()
    assert found[0] > 0
    assert found[1] == 0
    assert smallest_normal_halved() > 0
