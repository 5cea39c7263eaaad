"""Buffers of caches that cannot be made smaller."""

import pytest
from attendant_server.runtime.cache_pool import ANY_EXCESS, CachePool

from tests.server.test_cache_pool import SIZES, SOURCES, CountingBuffer


class FailingBuffer(CountingBuffer):
    """Cannot be laid out while it has failures left."""

    num_failures, num_attempts = 0, 0

    def lay_out(self, *_):
        self.num_attempts += 1
        if self.num_failures:
            self.num_failures -= 1
            raise MemoryError


def test_a_failed_shrink_is_logged_once_and_tried_again_only_for_another_need(caplog):
    pool = CachePool(SIZES, spare_bytes=0)
    buffer = FailingBuffer(pool, SOURCES, 64, ANY_EXCESS)
    buffer.fit(0, 64, 16)
    buffer.keep(8, 16)
    buffer.num_failures, buffer.num_attempts = 2, 0
    for _ in range(5):
        pool.settle()
    assert buffer.num_attempts == 1
    buffer.keep(4, 16)
    for _ in range(5):
        pool.settle()
    assert buffer.num_attempts == 2
    assert caplog.text.count("event=cache_shrink_failed") == 1
    buffer.keep(2, 16)
    pool.settle()
    assert pool.allocated <= 1.5 * pool.needed
    buffer.num_failures = 1
    buffer.keep(1, 16)
    pool.settle()
    assert caplog.text.count("event=cache_shrink_failed") == 2


def test_a_buffer_that_could_not_shrink_is_given_back_by_an_idle_worker():
    pool = CachePool(SIZES, spare_bytes=0)
    buffer = FailingBuffer(pool, SOURCES, 64, ANY_EXCESS)
    buffer.fit(0, 64, 16)
    buffer.clear()
    buffer.num_failures = 1
    pool.settle()
    assert pool.allocated > 0
    pool.settle()
    assert pool.allocated > 0
    pool.release()
    assert pool.allocated == 0


def test_a_shrink_that_fails_for_another_reason_than_memory_is_an_error(monkeypatch):
    pool = CachePool(SIZES, spare_bytes=0)
    buffer = FailingBuffer(pool, SOURCES, 64, ANY_EXCESS)
    buffer.fit(0, 64, 16)
    buffer.keep(8, 16)

    def lay_out(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(buffer, "lay_out", lay_out)
    with pytest.raises(ZeroDivisionError):
        pool.settle()
