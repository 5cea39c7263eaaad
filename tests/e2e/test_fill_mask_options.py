"""Given candidates for masks, and masks that are filled together."""

from itertools import product
from math import log
from typing import Any

import grpc
import pytest
from attendant.v1.embedding_pb2 import FillMaskRequest, FillMaskResult, MaskTexts, TextCandidates
from attendant.v1.text_pb2 import TRUNCATION_RIGHT
from attendant_client import Client

from tests.support.serving import Running, failure_of

TEXT = "The [MASK] sees the [MASK]."
WORDS = ["king", "dog", "sees", "The", "."]


def given(*of_texts: Any) -> list[TextCandidates]:
    """Candidates of texts, each a list for each mask."""
    return [TextCandidates(masks=[MaskTexts(texts=mask) for mask in masks]) for masks in of_texts]


def fill(server: Running, texts: list[str], **fields: Any) -> list[FillMaskResult]:
    return list(server.embedding.FillMask(FillMaskRequest(texts=texts, **fields)).results)


def test_given_candidates_are_ranked_by_their_probabilities_of_the_vocabulary(start: Any):
    server = start(max_top_k=10_000)
    (every,) = fill(server, [TEXT], top_k=10_000)
    (result,) = fill(server, [TEXT], candidates=given([WORDS]))
    for mask, expected in zip(result.masks, every.masks, strict=True):
        by_id = {each.id: each for each in expected.candidates}
        for each in mask.candidates:
            assert each.text == by_id[each.id].text
            assert each.probability == pytest.approx(by_id[each.id].probability, rel=1e-4)
        found = [each.probability for each in mask.candidates]
        assert found == sorted(found, reverse=True)
        assert {each.text for each in mask.candidates} == set(WORDS)


def test_each_mask_has_its_own_candidates_and_top_k_keeps_the_best(running: Running):
    many = ["king", "dog", "man", "baker"]
    masks = [many, ["sees"]]
    both, best = (
        fill(running, [TEXT, TEXT], candidates=given([many], masks), **options)[1]
        for options in ({}, {"top_k": 2})
    )
    assert [len(mask.candidates) for mask in both.masks] == [4, 1]
    assert [len(mask.candidates) for mask in best.masks] == [2, 1]
    assert list(best.masks[0].candidates) == list(both.masks[0].candidates)[:2]


def test_candidates_of_a_text_do_not_depend_on_other_texts(running: Running):
    texts = [TEXT, "The [MASK].", "[MASK] " * 20, TEXT]
    lists = ([WORDS], [["dog"]], [["king"]], [WORDS[:2], WORDS])
    together = fill(running, texts, candidates=given(*lists))
    for text, masks, result in zip(texts, lists, together, strict=True):
        (alone,) = fill(running, [text], candidates=given(masks))
        for one, two in zip(alone.masks, result.masks, strict=True):
            assert [c.text for c in one.candidates] == [c.text for c in two.candidates]
            assert [c.probability for c in one.candidates] == pytest.approx(
                [c.probability for c in two.candidates], rel=1e-4
            )


def test_a_bad_candidate_fails_its_text_alone(running: Running):
    bad = {
        "candidates[0].masks[0].texts[1]: must be a single token": [["dog", "dog king"]],
        "candidates[1].masks[1].texts[0]: must be a single token": [["dog"], ["zzzqqq"]],
        "candidates[2].masks[0].texts[0]: must be a single token": [["[MASK]"]],
        "candidates[3].masks[0].texts[0]: must be a single token": [[" "]],
        "candidates[4].masks[0].texts: must be between 1 and 100 texts, got 0": [[]],
        "candidates[5].masks[0].texts: must be between 1 and 100 texts, got 101": [["dog"] * 101],
        "candidates[6].masks: needs 1 entry, or one for each of 2 masks, got 3": [["dog"]] * 3,
        "candidates[7].masks: needs 1 entry, or one for each of 2 masks, got 0": [],
    }
    *failed, good = fill(
        running, [TEXT] * (len(bad) + 1), candidates=given(*bad.values(), [["dog"]])
    )
    for result, message in zip(failed, bad, strict=True):
        assert result.error.message.startswith(message)
        assert result.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [len(mask.candidates) for mask in good.masks] == [1, 1]


def test_candidates_of_another_number_of_texts_are_refused(running: Running):
    request = FillMaskRequest(texts=[TEXT, TEXT], candidates=given([["dog"]]))
    failure = failure_of(running.embedding.FillMask, request)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == "candidates: as many as texts, which are 2, or none, got 1"


def naive_fillings(
    server: Running, text: str, top_k: int, words: list[str] | None = None
) -> list[tuple[float, tuple[str, ...]]]:
    """A beam search whose steps are calls that fill the first mask of a text only."""
    beams: list[tuple[float, tuple[str, ...], str]] = [(0.0, (), text)]
    while "[MASK]" in beams[0][2]:
        extended: list[tuple[float, tuple[str, ...], str]] = []
        for total, tokens, rest in beams:
            candidates: Any = {} if words is None else {"candidates": given([words])}
            (result,) = fill(server, [rest], top_k=top_k, **candidates)
            for each in result.masks[0].candidates:
                filled = rest.replace("[MASK]", each.text, 1)
                extended.append((total + log(each.probability), (*tokens, each.text), filled))
        beams = sorted(extended, key=lambda beam: -beam[0])[:top_k]
    return [(total, tokens) for total, tokens, _ in beams]


@pytest.mark.parametrize("top_k", [1, 4])
def test_joint_fillings_are_those_of_a_beam_search_from_mask_to_mask(running: Running, top_k: int):
    texts = ["The [MASK] sees the [MASK].", "[MASK] dog [MASK] [MASK] king."]
    results = fill(running, [*texts, "The dog.", "The [MASK]."], joint=True, top_k=top_k)
    words = ["king", "dog", "sees", "the", "The"]
    for text in texts:
        (result,) = fill(running, [text], joint=True, top_k=top_k, candidates=given([words]))
        expected = naive_fillings(running, text, top_k, words)
        check(result, expected)
    for text, result in zip(texts, results, strict=False):
        assert len(result.fillings) == top_k
        assert [(mask.start, mask.end) for mask in result.masks] == [
            (i, i + 6) for i in range(len(text)) if text.startswith("[MASK]", i)
        ]
        assert not any(mask.candidates for mask in result.masks)
    assert results[2].error.message == "texts[2]: has no mask"
    (alone,) = fill(running, ["The [MASK]."], top_k=top_k)
    assert [each.tokens[0].id for each in results[3].fillings] == [
        each.id for each in alone.masks[0].candidates
    ]


def check(result: FillMaskResult, expected: list[tuple[float, tuple[str, ...]]]) -> None:
    found = [
        (each.log_probability, tuple(token.text for token in each.tokens))
        for each in result.fillings
    ]
    assert [tokens for _, tokens in found] == [tokens for _, tokens in expected]
    assert [total for total, _ in found] == pytest.approx([t for t, _ in expected], abs=1e-3)
    for total, filling in zip((t for t, _ in found), result.fillings, strict=True):
        assert total == pytest.approx(sum(log(t.probability) for t in filling.tokens), abs=1e-4)


def test_a_wide_beam_finds_the_likeliest_of_all_combinations(running: Running):
    words = ["king", "dog"]
    (result,) = fill(running, [TEXT], joint=True, top_k=4, candidates=given([words]))
    found = {tuple(token.text for token in each.tokens) for each in result.fillings}
    assert found == set(product(words, words))
    totals = [each.log_probability for each in result.fillings]
    assert totals == sorted(totals, reverse=True)


def test_too_many_masks_to_fill_together_fail_their_text_alone(running: Running):
    bad, good = fill(running, ["[MASK] " * 17, "[MASK] " * 16], joint=True, top_k=1)
    assert bad.error.message == "texts[0]: at most 16 masks, got 17"
    assert len(good.fillings[0].tokens) == 16


def test_a_beam_of_fillings_is_as_wide_as_one_of_translations(running: Running):
    failure = failure_of(
        running.embedding.FillMask, FillMaskRequest(texts=[TEXT], joint=True, top_k=9)
    )
    assert failure.details() == "top_k: must be between 1 and 8, got 9"


def test_masks_that_truncation_drops_need_no_candidates(running: Running):
    text = "[MASK] dog " * 40
    (result,) = fill(
        running, [text], candidates=given([["dog"]]), truncation=TRUNCATION_RIGHT, top_k=1
    )
    assert len(result.masks) == 31


def test_places_of_masks_refer_to_the_text_as_sent(running: Running):
    text = "e\u0301 the [MASK] u\u0308."
    (result,) = fill(running, [text], text_normalization=2)
    assert text[result.masks[0].start : result.masks[0].end] == "[MASK]"


def test_joint_fillings_count_all_tokens_that_are_read_for_quotas(start: Any):
    server = start(caller_max_tokens_per_minute=60)
    request = FillMaskRequest(texts=[TEXT], joint=True, top_k=8)
    failure = failure_of(server.embedding.FillMask, request)
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert fill(server, [TEXT], joint=True, top_k=1)[0].fillings


def test_clients_take_candidates_for_all_masks_or_for_each(running: Running):
    with Client(f"127.0.0.1:{running.server.port}") as client:
        one = client.fill_mask(TEXT, candidates=["dog", "king"], model="tiny-bert")
        assert {each.text for each in one.masks[1].candidates} == {"dog", "king"}
        each = client.fill_mask(TEXT, candidates=[["dog"], ["king"]], joint=True, model="tiny-bert")
        assert [token.text for token in each.fillings[0].tokens] == ["dog", "king"]
        assert repr(each) == "FilledText(best=['dog', 'king'])"
        texts = [TEXT] * 300
        masks = [[["dog"], ["king"]]] * 299 + [[["dog"], ["dog king"]]]
        *_, good, bad = client.fill_mask(texts, candidates=masks, model="tiny-bert")
        assert [mask.candidates[0].text for mask in good.masks] == ["dog", "king"]
        assert bad.error is not None
        assert bad.error.message.startswith("masks[1].texts[0]: must be a single token")
        with pytest.raises(ValueError, match="candidates must be those of 2 texts, not of 1"):
            client.fill_mask([TEXT, TEXT], candidates=[[["dog"]]])
        with pytest.raises(ValueError, match="must be a list of texts"):
            client.fill_mask(TEXT, candidates="dog")
