"""Plans of translation calls: shared by calls with the same options, and by no other calls."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from attendant_server.application import translation_plans
from attendant_server.application.application import Application
from attendant_server.application.sampling import SamplingOptions
from attendant_server.application.translation import TranslationRequest
from attendant_server.application.translation_options import TranslationOptions
from attendant_server.application.translation_plans import TranslationPlan
from attendant_server.errors import InvalidRequest

from tests.support.application import request_limits, running_application

DIFFERENT: list[dict[str, Any]] = [
    {},
    {"options": TranslationOptions(beam_size=2)},
    {"options": TranslationOptions(beam_size=2, num_hypotheses=2)},
    {"options": TranslationOptions(return_tokens=True)},
    {"options": TranslationOptions(repetition_guard=False)},
    {"options": TranslationOptions(max_output_tokens=3)},
    {"truncation": 2},
    {"splitting": 1},
    {"splitting": 2},
    {"text_normalization": 1},
    {"return_sentences": True},
]


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    with running_application(request_limits()) as application:
        yield application


def plan(application: Application, **fields: Any) -> TranslationPlan:
    request = TranslationRequest([], **fields)
    return asyncio.run(application.translator.planner.plan(request))


def test_calls_with_the_same_options_share_a_plan(application: Application):
    for fields in DIFFERENT:
        first = plan(application, **fields)
        assert plan(application, **fields) is first


def test_calls_with_different_options_have_different_plans(application: Application):
    plans = [plan(application, **fields) for fields in DIFFERENT]
    comparable = [
        (
            p.options,
            p.tokenization,
            p.read_pieces,
            p.joiner.return_tokens,
            p.joiner.return_sentences,
        )
        for p in plans
    ]
    for i, each in enumerate(comparable):
        assert all(each != other for other in comparable[i + 1 :])


def test_bad_options_are_refused_each_time(application: Application):
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=r"options\.beam_size"):
            plan(application, options=TranslationOptions(beam_size=1000))


def test_each_call_that_samples_without_a_seed_gets_a_seed_of_its_own(application: Application):
    options = TranslationOptions(sampling=SamplingOptions())
    seeds = {plan(application, options=options).seed for _ in range(8)}
    assert len(seeds) > 1
    assert None not in seeds


def test_suppressed_tokens_of_one_call_do_not_reach_another(application: Application):
    plan(application, options=TranslationOptions(suppressed_token_ids=(7,)))
    assert 7 not in plan(application).options.suppressed_token_ids


def test_the_number_of_remembered_plans_is_bounded(
    application: Application, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(translation_plans, "MAX_REMEMBERED", 3)
    for max_output_tokens in range(1, 9):
        plan(application, options=TranslationOptions(max_output_tokens=max_output_tokens))
    assert len(plan(application).model.plans) <= 3
