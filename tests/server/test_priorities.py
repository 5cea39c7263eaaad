"""The priority of workers beside the event loop."""

import asyncio
import os
import sys
import threading

import pytest
from attendant_server.application.jobs import JobRunner
from attendant_server.system.priorities import WORKER_NICENESS, lower_priority

from tests.support.engines import TIMEOUT

MAX_NICENESS = 19

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="threads have no niceness of their own"
)


def niceness_of(thread_id):
    return os.getpriority(os.PRIO_PROCESS, thread_id)


def test_only_the_calling_thread_gets_a_lower_priority():
    before, seen = niceness_of(0), []

    def work():
        lower_priority()
        seen.append(niceness_of(threading.get_native_id()))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(TIMEOUT)
    assert seen == [min(MAX_NICENESS, before + WORKER_NICENESS)]
    assert niceness_of(0) == before


def test_threads_of_long_work_have_the_priority_of_workers():
    jobs = JobRunner(1)
    try:
        found = asyncio.run(jobs.run(lambda: niceness_of(threading.get_native_id())))
    finally:
        jobs.close()
    assert found == min(MAX_NICENESS, niceness_of(0) + WORKER_NICENESS)


def test_a_system_that_forbids_it_is_no_fault(monkeypatch):
    def nice(_):
        raise PermissionError

    monkeypatch.setattr(os, "nice", nice)
    lower_priority()
