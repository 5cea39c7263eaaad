"""Bulk calls of callers with quotas, with real servers and clients."""

import grpc
import pytest

from tests.security.test_quotas import MODEL, value
from tests.support.serving import wait_until

TEXT = "The dog sees the king."


@pytest.fixture
def limited(start, client_of, key_file):
    """Starts a server, and returns it with the client of a key with these limits."""

    def limited(limits: str, **options):
        key = key_file.add("search", limits)
        server = start(api_keys=str(key_file.path))
        return server, client_of(server, token=key, **options)

    return limited


def test_a_bulk_call_waits_until_its_quota_of_texts_allows_more(limited):
    server, client = limited("max_texts_per_minute = 120\n")
    found = list(client.bulk_translate([TEXT] * 124, model=MODEL))
    assert [each.error for each in found] == [None] * 124
    wait_until(lambda: value(server, "texts", caller="key:search") == 124)
    assert value(server, "refused_calls", caller="key:search") == 0


def test_a_bulk_call_waits_until_its_quota_of_tokens_allows_more(limited):
    server, client = limited("max_tokens_per_minute = 600\n")
    [first] = client.bulk_embed([TEXT])
    num_texts = 620 // first.num_tokens
    found = list(client.bulk_embed([TEXT] * num_texts))
    assert [each.error for each in found] == [None] * num_texts
    num_tokens = (num_texts + 1) * first.num_tokens
    assert num_tokens > 600
    wait_until(lambda: value(server, "tokens", caller="key:search") == num_tokens)


def test_a_text_that_the_quota_never_allows_fails_alone(limited):
    _, client = limited("max_tokens_per_minute = 20\n")
    good, bad, other = client.bulk_translate([TEXT, "dog " * 40, "dog"], model=MODEL)
    assert good.error is None
    assert other.error is None
    assert bad.error is not None
    assert bad.error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "is never possible" in bad.error.message


def test_a_bulk_call_is_one_concurrent_call(limited):
    _, client = limited("max_concurrent_calls = 1\n")
    assert len(list(client.bulk_translate([TEXT] * 40, model=MODEL))) == 40
