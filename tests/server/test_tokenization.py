import asyncio
import threading
from contextlib import closing, suppress
from typing import Any

import pytest
from attendant_export.data.tokenizer import train_bert_tokenizer
from attendant_server.application.held_memory import HELD_BYTES_PER_TOKEN, HeldMemory
from attendant_server.application.jobs import MAX_INLINE_TOKENS, JobRunner
from attendant_server.application.tokenization import (
    MAX_JOB_CHARACTERS,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TextPair,
    TokenizationOptions,
    Truncation,
)
from attendant_server.errors import InvalidRequest, QueueFull
from attendant_server.tokenizer import TextTokenizer
from tokenizers import Tokenizer, models


@pytest.mark.parametrize(
    ("num_tokens", "thread"),
    [
        (0, "MainThread"),
        (MAX_INLINE_TOKENS, "MainThread"),
        (MAX_INLINE_TOKENS + 1, "attendant-tokenizer"),
    ],
)
def test_only_long_answers_are_built_on_the_threads_of_the_pool(num_tokens: int, thread: str):
    with closing(JobRunner(1)) as jobs:
        building = jobs.run_for(num_tokens, lambda: threading.current_thread().name)
        assert asyncio.run(building).startswith(thread)


@pytest.mark.parametrize("num_characters", [1, MAX_JOB_CHARACTERS])
def test_faults_number_the_texts_of_the_call_and_not_of_a_job(num_characters: int):
    library = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    options = TokenizationOptions(
        TextTokenizer(library.to_str()), MAX_JOB_CHARACTERS, max_characters=MAX_JOB_CHARACTERS
    )
    texts = ["a" * num_characters, "", "a" * num_characters, ""]
    with closing(JobRunner(1)) as jobs:
        tokenized = asyncio.run(tokenize(jobs, options, "texts[{}]", texts))
    faults = [text.field for text in tokenized if isinstance(text, InvalidRequest)]
    assert faults == ["texts[1]", "texts[3]"]


@pytest.mark.parametrize("truncation", Truncation)
def test_a_text_without_room_between_the_tokens_around_it_is_refused(truncation: Truncation):
    library = Tokenizer(models.BPE(vocab={"a": 0, "<s>": 1}, merges=[]))
    tokenizer = TextTokenizer(library.to_str())
    around = tokenizer.special_tokens([1, 1])
    options = TokenizationOptions(
        tokenizer, 3, max_characters=3, truncation=truncation, before=around, after=around
    )
    with closing(JobRunner(1)) as jobs:
        (found,) = asyncio.run(tokenize(jobs, options, "texts[{}]", ["aaa"]))
    assert isinstance(found, InvalidRequest)
    assert "texts[0]: at most 3 tokens, got " in str(found)


@pytest.mark.parametrize("truncation", [Truncation.RIGHT, Truncation.LEFT])
@pytest.mark.parametrize(("max_tokens", "is_cut"), [(2, False), (3, False), (4, False), (5, True)])
def test_truncation_keeps_text_of_both_texts_of_a_pair(
    truncation: Truncation, max_tokens: int, is_cut: bool
):
    tokenizer = TextTokenizer(train_bert_tokenizer(["The dog"], 150).to_str())
    options = TokenizationOptions(tokenizer, max_tokens, 100, truncation)
    pair = TextPair("The dog", "The dog The")
    with closing(JobRunner(1)) as jobs:
        (found,) = asyncio.run(tokenize(jobs, options, "texts[{}]", [pair]))
    if is_cut:
        assert not isinstance(found, InvalidRequest)
        assert len(found) == max_tokens
    else:
        assert str(found) == f"texts[0]: at most {max_tokens} tokens, got 8"


def letters(max_held_bytes: int, other_bytes: int, texts: list[str]) -> tuple[int, int]:
    """The tokens that a call with these texts holds, and the number of its jobs.

    Each letter is a token. Another call of the caller holds ``other_bytes``.
    """
    library = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    options = TokenizationOptions(TextTokenizer(library.to_str()), None, MAX_JOB_CHARACTERS)
    memory = HeldMemory(max_held_bytes, 8, print)
    memory.hold("", other_bytes)
    num_jobs = 0

    class CountedJobs(JobRunner):
        async def run(self, work: Any) -> Any:
            nonlocal num_jobs
            num_jobs += 1
            return await super().run(work)

    async def read() -> None:
        memory.hold("", 0).make_current()
        with closing(CountedJobs(1)) as jobs, suppress(QueueFull):
            await tokenize(jobs, options, "texts[{}]", texts)

    asyncio.run(read())
    return (memory.num_bytes - other_bytes) // HELD_BYTES_PER_TOKEN, num_jobs


def test_the_tokens_of_long_texts_count_as_held_memory():
    texts = ["a" * MAX_JOB_CHARACTERS] * 3
    assert letters(10**9, 1, texts) == (3 * MAX_JOB_CHARACTERS, 3)


def test_a_call_whose_tokens_have_no_room_is_refused_before_any_work():
    texts = ["a" * MAX_JOB_CHARACTERS] * 3
    assert letters(10**6, 10**6, texts) == (0, 0)


def test_a_call_with_more_tokens_than_usual_is_refused_once_they_have_no_room():
    texts = ["a" * MAX_JOB_CHARACTERS] * 3
    room = 2 * MAX_JOB_CHARACTERS * HELD_BYTES_PER_TOKEN
    assert letters(int(2.1 * room), 1, texts) == (3 * MAX_JOB_CHARACTERS, 3)
    assert letters(int(1.2 * room), 1, texts)[1] == 2
