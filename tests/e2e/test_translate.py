import math
from typing import Any

import grpc
import pytest
from attendant.v1 import text_pb2, translation_pb2
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from google.rpc import code_pb2

from tests.support.bundles import sentence_pairs
from tests.support.serving import Running, failure_of

SENTENCES = [english for english, _ in sentence_pairs()[:8]]
MAX_TOKENS = 64


def translate(running: Running, *texts: str, **options: Any) -> translation_pb2.TranslateResponse:
    request = TranslateRequest(texts=texts, options=TranslateOptions(return_tokens=True, **options))
    response: translation_pb2.TranslateResponse = running.translation.Translate(request)
    return response


def test_known_sentences_are_translated_as_learned(running: Running):
    pairs = sentence_pairs()[:8]
    response = translate(running, *(english for english, _ in pairs), beam_size=4)
    found = [t.hypotheses[0].text for t in response.translations]
    num_right = sum(text == german for text, (_, german) in zip(found, pairs, strict=True))
    assert num_right >= 4


def test_a_text_gets_the_same_tokens_alone_and_among_others(running: Running):
    together = translate(running, *SENTENCES).translations
    for text, translation in zip(SENTENCES, together, strict=True):
        alone = translate(running, text).translations[0]
        assert [t.id for t in alone.hypotheses[0].tokens] == [
            t.id for t in translation.hypotheses[0].tokens
        ]


def test_the_score_is_the_mean_log_probability_unless_another_penalty_is_given(running: Running):
    for penalty in (None, 0.0, 0.5):
        options = {} if penalty is None else {"length_penalty": penalty}
        [translation] = translate(running, SENTENCES[0], **options).translations
        [hypothesis] = translation.hypotheses
        total = sum(token.log_probability for token in hypothesis.tokens)
        length = len(hypothesis.tokens) ** (1.0 if penalty is None else penalty)
        assert hypothesis.score == pytest.approx(total / length, rel=1e-4)


def test_hypotheses_come_best_first_and_as_many_as_asked_for(running: Running):
    [translation] = translate(running, SENTENCES[0], beam_size=4, num_hypotheses=3).translations
    scores = [hypothesis.score for hypothesis in translation.hypotheses]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_the_end_token_is_last_exactly_when_the_model_stopped(running: Running):
    [stopped] = translate(running, SENTENCES[0]).translations[0].hypotheses
    assert stopped.finish_reason == translation_pb2.FINISH_REASON_STOP
    assert stopped.tokens[-1].text == "</s>"
    assert "</s>" not in stopped.text
    [cut] = translate(running, SENTENCES[0], max_output_tokens=2).translations[0].hypotheses
    assert cut.finish_reason == translation_pb2.FINISH_REASON_LENGTH
    assert len(cut.tokens) == 2
    assert cut.tokens[-1].text != "</s>"


def test_no_end_token_comes_before_the_least_number_of_tokens(running: Running):
    [long] = translate(running, SENTENCES[0], min_output_tokens=20).translations[0].hypotheses
    assert len(long.tokens) > 20


def test_a_text_without_words_fails_alone(running: Running):
    response = translate(running, SENTENCES[0], " \n\t", SENTENCES[1])
    assert [t.error.code for t in response.translations] == [0, code_pb2.INVALID_ARGUMENT, 0]
    assert response.translations[1].error.message.startswith("texts[1]: ")
    assert not response.translations[1].hypotheses
    assert response.translations[1].num_source_tokens == 0


def test_a_call_in_which_every_text_fails_is_answered(running: Running):
    response = translate(running, "", " ")
    assert all(t.error.code == code_pb2.INVALID_ARGUMENT for t in response.translations)
    assert response.token_counts.num_input_tokens == 0


def test_a_long_text_that_is_not_split_is_refused_unless_truncation_is_asked_for(running: Running):
    text = "the dog " * 200
    whole = TranslateRequest(texts=[text], splitting=text_pb2.SPLITTING_NONE)
    [refused] = running.translation.Translate(whole).translations
    assert refused.error.code == code_pb2.INVALID_ARGUMENT
    assert f"at most {MAX_TOKENS} tokens, got" in refused.error.message
    for truncation in (text_pb2.TRUNCATION_RIGHT, text_pb2.TRUNCATION_LEFT):
        request = TranslateRequest(texts=[text], truncation=truncation)
        [cut] = running.translation.Translate(request).translations
        assert cut.num_source_tokens == MAX_TOKENS
        assert cut.truncation.truncation == truncation
        assert cut.truncation.num_kept_tokens == MAX_TOKENS
        assert cut.truncation.num_original_tokens > MAX_TOKENS
    split = TranslateRequest(
        texts=[text],
        truncation=text_pb2.TRUNCATION_RIGHT,
        splitting=text_pb2.SPLITTING_LINES,
    )
    error = failure_of(running.translation.Translate, split)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "truncation: is for texts that are not split only"


def test_tokens_are_counted_and_times_are_told(running: Running):
    response = translate(running, *SENTENCES, beam_size=2, num_hypotheses=2)
    num_output = sum(len(h.tokens) for t in response.translations for h in t.hypotheses)
    assert response.token_counts.num_output_tokens == num_output
    num_input = sum(t.num_source_tokens for t in response.translations)
    assert response.token_counts.num_input_tokens == num_input
    assert response.model == "tiny-en-de/1"
    for phase in ("queue", "tokenize", "encode", "decode"):
        assert response.timings.HasField(phase)
    assert response.timings.encode.ToNanoseconds() > 0
    assert response.timings.decode.ToNanoseconds() > 0


@pytest.mark.parametrize("beam_size", [1, 4])
def test_the_pieces_of_a_stream_add_up_to_the_translation(running: Running, beam_size: int):
    options = TranslateOptions(return_tokens=True, beam_size=beam_size)
    request = StreamTranslateRequest(text=SENTENCES[0], options=options)
    *pieces, last = running.translation.StreamTranslate(request)
    assert not any(piece.HasField("translation") for piece in pieces)
    assert all(piece.delta for piece in pieces)
    whole = translate(running, SENTENCES[0], beam_size=beam_size).translations[0].hypotheses[0]
    assert "".join(piece.delta for piece in [*pieces, last]) == whole.text
    assert last.translation.hypotheses[0].text == whole.text
    assert last.model == "tiny-en-de/1"


@pytest.mark.usefixtures("every_prefix")
def test_a_greedy_stream_sends_complete_words_as_they_are_decoded(running: Running):
    request = StreamTranslateRequest(text=SENTENCES[0])
    *pieces, last = running.translation.StreamTranslate(request)
    words = last.translation.hypotheses[0].text.split(" ")
    sent = [word for piece in pieces for word in piece.delta.split()]
    assert len(pieces) > 1
    assert sent == words[:-1]


def test_a_stream_of_a_text_without_words_fails(running: Running):
    stream = running.translation.StreamTranslate(StreamTranslateRequest(text=" "))
    failure = failure_of(next, stream)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("text: ")


def test_scoring_a_translation_gives_the_log_probabilities_that_it_was_found_with(running: Running):
    found = translate(running, *SENTENCES).translations
    pairs = [
        TranslationPair(source=text, target=translation.hypotheses[0].text)
        for text, translation in zip(SENTENCES, found, strict=True)
    ]
    response = running.translation.Score(ScoreRequest(return_tokens=True, pairs=pairs))
    for translation, score in zip(found, response.scores, strict=True):
        hypothesis = translation.hypotheses[0]
        if [t.id for t in hypothesis.tokens] == [t.id for t in score.tokens]:
            expected = [t.log_probability for t in hypothesis.tokens]
            assert score.log_probabilities == pytest.approx(expected, abs=1e-3)
            assert score.score == pytest.approx(hypothesis.score, abs=1e-3)
    assert response.token_counts.num_output_tokens == 0


def test_the_places_of_scored_tokens_count_code_points_of_the_target(running: Running):
    target = "Der König 🐶 sieht."
    pair = TranslationPair(source=SENTENCES[0], target=target)
    [score] = running.translation.Score(ScoreRequest(return_tokens=True, pairs=[pair])).scores
    assert len(score.tokens) == len(score.log_probabilities)
    assert score.tokens[-1].special
    pieces = [target[token.start : token.end] for token in score.tokens]
    assert "".join(pieces) == target
    assert score.log_probability == pytest.approx(math.fsum(score.log_probabilities), abs=1e-4)


def test_a_bad_side_of_a_pair_fails_alone(running: Running):
    pairs = [
        TranslationPair(source=SENTENCES[0], target="Der Hund."),
        TranslationPair(source=" ", target="Der Hund."),
        TranslationPair(source=SENTENCES[0], target=""),
        TranslationPair(source=SENTENCES[0], target="Hund " * 200),
    ]
    request = ScoreRequest(return_tokens=True, pairs=pairs, truncation=text_pb2.TRUNCATION_RIGHT)
    first, *others = running.translation.Score(request).scores
    assert not first.HasField("error")
    fields = ["pairs[1].source", "pairs[2].target", "pairs[3].target"]
    assert [score.error.message.partition(":")[0] for score in others] == fields


def test_tokens_are_in_answers_only_if_asked_for(running: Running):
    options = TranslateOptions(beam_size=2, num_hypotheses=2)
    plain = running.translation.Translate(TranslateRequest(texts=SENTENCES, options=options))
    whole = translate(running, *SENTENCES, beam_size=2, num_hypotheses=2)
    assert plain.ByteSize() < whole.ByteSize() / 3
    for translation in whole.translations:
        for hypothesis in translation.hypotheses:
            assert hypothesis.tokens
            del hypothesis.tokens[:]
    assert plain.translations == whole.translations
    assert plain.token_counts == whole.token_counts


def test_the_end_of_a_stream_has_tokens_only_if_asked_for(running: Running):
    for return_tokens in (False, True):
        options = TranslateOptions(return_tokens=return_tokens)
        request = StreamTranslateRequest(text=SENTENCES[0], options=options)
        *_, last = running.translation.StreamTranslate(request)
        assert bool(last.translation.hypotheses[0].tokens) is return_tokens


def test_scores_have_tokens_only_if_asked_for(running: Running):
    pairs = [TranslationPair(source=english, target=german) for english, german in sentence_pairs()]
    plain = running.translation.Score(ScoreRequest(pairs=pairs[:4])).scores
    whole = running.translation.Score(ScoreRequest(pairs=pairs[:4], return_tokens=True)).scores
    for score in whole:
        assert len(score.tokens) == len(score.log_probabilities) > 0
        del score.tokens[:]
        del score.log_probabilities[:]
    assert list(plain) == list(whole)
