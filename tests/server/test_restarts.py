from attendant_server.restarts import MAX_DEATHS, PERIOD_SECONDS, Restarts

from tests.support.engines import Clock


def test_delays_double_until_the_deaths_are_too_many():
    restarts = Restarts(Clock())
    delays = [restarts.next_delay() for _ in range(MAX_DEATHS)]
    assert delays == [1.0, 2.0, 4.0, 8.0, None]


def test_deaths_long_ago_do_not_count():
    clock = Clock()
    restarts = Restarts(clock)
    for _ in range(3 * MAX_DEATHS):
        assert restarts.next_delay() == 1.0
        clock.now += PERIOD_SECONDS
