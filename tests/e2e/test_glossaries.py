"""Translations with the terms of glossaries."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1 import text_pb2
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.translation_pb2 import (
    BulkTranslateRequest,
    GlossaryEntry,
    Hypothesis,
    Sampling,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    Translation,
)
from attendant_client import Client
from attendant_client.model_page import model_page
from attendant_export.bundle.glossaries import GlossaryFile, add_glossaries
from attendant_export.bundle.manifest import read_manifest, write_manifest
from attendant_export.bundle.signing import sign_bundle
from attendant_server import records
from attendant_server.application import glossary_drafts, glossary_folder, glossary_places
from attendant_server.application.catalog import ServedModel
from attendant_server.application.glossaries import (
    HELD_BYTES_PER_ENTRY,
    HELD_BYTES_PER_TRANSLATION,
    Glossary,
)
from attendant_server.application.glossary_drafts import MAX_SEARCHES
from attendant_server.application.glossary_places import MAX_DECODED, MAX_SCORED
from attendant_server.engine.calls import Call, TokenIds, TranslateCall
from attendant_server.engine.pair_calls import AlignCall, ScoreCall
from attendant_server.records import CallRecord

from tests.support.application import TINY_BUNDLES
from tests.support.bulk import each_result
from tests.support.credentials import signing_key
from tests.support.serving import Running, failure_of, running_server, wait_until

BUILT_IN = Path(__file__).parents[2] / "bundles"
TERMS = {
    "cat": ["Kater"],
    "dog": ["Hündchen"],
    "sofa": ["Couch"],
    "train station": ["Haltestelle"],
}
TEXT = (
    "The cat is sleeping on the sofa. Where is the train station?\n\n"
    "My dog likes your cat \U0001f600."
)


@pytest.fixture(scope="module")
def glossaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glossaries")
    lines = ["\t".join([source, *targets]) for source, targets in TERMS.items()]
    (folder / "animals.tsv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "broken.tsv").write_text("cat", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def signed_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model with glossaries of its own, signed with the key of ``key.pem``."""
    root = tmp_path_factory.mktemp("bundles")
    bundle = Path(shutil.copytree(BUILT_IN / "en-de/3", root / "en-de/3"))
    manifest = read_manifest(bundle)
    own = [GlossaryFile("pets", b"cat\tMieze\n"), GlossaryFile("animals", b"cat\tMieze\n")]
    add_glossaries(bundle, manifest, own)
    del manifest.files[:]
    write_manifest(bundle, manifest)
    signing_key(root / "key", root / "key.pem")
    sign_bundle(bundle, root / "key")
    return root


@pytest.fixture(scope="module")
def running(loop, settings, signed_bundles, glossaries) -> Iterator[Running]:
    options = {"bundles": signed_bundles, "models": ("en-de",), "glossaries": str(glossaries)}
    keys = str(signed_bundles / "key.pem")
    with running_server(loop, settings(**options, bundle_keys=keys, precision="auto")) as server:
        yield server


def entries(terms: dict[str, list[str]]) -> list[GlossaryEntry]:
    return [GlossaryEntry(source=source, targets=targets) for source, targets in terms.items()]


def translated(
    running: Running, text: str, terms: dict[str, list[str]], **more: Any
) -> Translation:
    request = TranslateRequest(texts=[text], glossary_entries=entries(terms), **more)
    return running.translation.Translate(request).translations[0]


def best(running: Running, text: str, terms: dict[str, list[str]], **more: Any) -> Hypothesis:
    return translated(running, text, terms, **more).hypotheses[0]


def used(text: str, hypothesis: Hypothesis) -> list[tuple[str, str]]:
    return [
        (
            text[term.source_start : term.source_end],
            hypothesis.text[term.target_start : term.target_end],
        )
        for term in hypothesis.glossary_terms
    ]


def test_translations_have_the_terms_and_say_where(running: Running):
    found = best(running, TEXT, TERMS)
    assert used(TEXT, found) == [
        ("cat", "Kater"),
        ("sofa", "Couch"),
        ("train station", "Haltestelle"),
        ("dog", "Hündchen"),
        ("cat", "Kater"),
    ]
    assert [term.source for term in found.glossary_terms][2] == "train station"
    assert found.text.endswith("\U0001f600.")
    assert "\n\n" in found.text


def test_words_before_a_term_suit_it(running: Running):
    assert best(running, "The car is red.", {}).text == "Das Auto ist rot."
    assert best(running, "The car is red.", {"car": ["Wagen"]}).text == "Der Wagen ist rot."


def test_a_translation_that_has_the_terms_already_stays_as_it_is(running: Running):
    plain = best(running, TEXT, {})
    terms = {"cat": ["Katze"], "dog": ["Hund"]}
    found = best(running, TEXT, terms)
    assert found.text == plain.text
    assert found.score == plain.score
    assert [target for _, target in used(TEXT, found)] == ["Katze", "Hund", "Katze"]


def test_of_several_translations_that_of_the_likeliest_sentence_is_taken(running: Running):
    forms = {"dog": ["Köter", "Köters", "Hündchen"]}
    [(_, target)] = used(TEXT, best(running, TEXT, forms))
    alone = {
        term: running.translation.Translate(
            TranslateRequest(texts=[TEXT], glossary_entries=entries({"dog": [term]}))
        )
        for term in forms["dog"]
    }
    assert target in alone
    assert best(running, TEXT, forms).text == alone[target].translations[0].hypotheses[0].text


@pytest.mark.parametrize(
    "options",
    [
        TranslateOptions(beam_size=4, num_hypotheses=4),
        TranslateOptions(beam_size=4, num_hypotheses=4, num_beam_groups=2),
        TranslateOptions(num_hypotheses=3, sampling=Sampling(seed=3)),
        TranslateOptions(beam_size=3, no_repeat_ngram_size=2, length_penalty=0.6),
        TranslateOptions(suppressed_texts=["K"], min_output_tokens=12),
    ],
    ids=["beams", "groups", "samples", "ngrams", "suppressed"],
)
def test_all_hypotheses_have_the_terms_with_any_options(running: Running, options):
    found = translated(running, TEXT, TERMS, options=options)
    assert 1 <= len(found.hypotheses) <= max(1, options.num_hypotheses)
    for hypothesis in found.hypotheses:
        targets = [target for _, target in used(TEXT, hypothesis)]
        assert targets == ["Kater", "Couch", "Haltestelle", "Hündchen", "Kater"]
    again = translated(running, TEXT, TERMS, options=options)
    assert [each.text for each in again.hypotheses] == [each.text for each in found.hypotheses]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call[Any]]:
    """The further calls of all requests."""
    found: list[Call[Any]] = []
    answer_further = ServedModel.answer_further

    async def counted(model: ServedModel, call: Call[Any]) -> list[Any]:
        found.append(call)
        return await answer_further(model, call)

    monkeypatch.setattr(ServedModel, "answer_further", counted)
    return found


NOUNS = ["cat", "dog", "horse", "bird", "house", "garden", "table", "chair", "window", "door"]
LIST = f"I saw {', '.join(f'the {noun}' for noun in NOUNS)}."


def test_many_missing_terms_take_few_searches(running: Running, calls: list[Call[Any]]):
    found = best(running, LIST, {noun: [f"{noun.capitalize()}ling"] for noun in NOUNS})
    assert used(LIST, found) == [(noun, f"{noun.capitalize()}ling") for noun in NOUNS]
    searches = [call for call in calls if isinstance(call, TranslateCall)]
    assert 4 <= len(searches) <= 2 * MAX_SEARCHES  # for words before terms, and for the rest
    assert sum(isinstance(call, AlignCall) for call in calls) == MAX_SEARCHES


def test_many_translations_of_many_terms_cost_no_more_than_some(
    running: Running, calls: list[Call[Any]]
):
    endings = ["ling", "chen", "heit", "tum", "ung", "schaft", "nis", "lein", "keit", "wesen"]
    endings += ["werk", "zeug", "gut", "art", "stoff", "mann"]
    nouns = [*NOUNS, "tree", "river", "mountain", "car", "book", "ship"]
    text = f"I saw {', '.join(f'the {noun}' for noun in nouns)}."
    terms = {noun: [f"{noun.capitalize()}{ending}" for ending in endings] for noun in nouns}
    found = best(running, text, terms)
    assert [source for source, _ in used(text, found)] == nouns
    num_scored = sum(call.num_texts for call in calls if isinstance(call, ScoreCall))
    searches = [call for call in calls if isinstance(call, TranslateCall)]
    ends = [call for call in searches if call.options.num_alternatives == 1]
    assert sum(call.num_texts for call in ends) <= MAX_SEARCHES * MAX_DECODED
    assert num_scored <= MAX_SEARCHES * (MAX_SCORED + MAX_DECODED)


def test_texts_of_further_searches_count_for_the_quotas_of_the_caller(
    running: Running, calls: list[Call[Any]], monkeypatch: pytest.MonkeyPatch
):
    answer_further, found = ServedModel.answer_further, list[CallRecord]()

    async def noted(model: ServedModel, call: Call[Any]) -> list[Any]:
        found.append(records.current())
        return await answer_further(model, call)

    monkeypatch.setattr(ServedModel, "answer_further", noted)
    best(running, "The cat is sleeping.", {"cat": ["Kater", "Katerchen"]})
    record = found[0]
    sources = [source for call in calls for source in sources_of(call)]
    assert len(sources) > 4
    assert set(map(len, sources)) == {record.num_input_tokens}
    assert record.num_counted_tokens == (1 + len(sources)) * record.num_input_tokens


def sources_of(call: Call[Any]) -> list[TokenIds]:
    if isinstance(call, TranslateCall):
        return list(call.sources)
    assert isinstance(call, AlignCall | ScoreCall)
    return [source for source, _ in call.pairs]


@pytest.mark.parametrize("max_searches", [1, 2, MAX_SEARCHES])
def test_all_terms_are_there_however_many_a_search_adds(
    running: Running, monkeypatch, max_searches
):
    for module in (glossary_drafts, glossary_places):
        monkeypatch.setattr(module, "MAX_SEARCHES", max_searches)
    text = "The cat likes my garden near the sofa. They just want to make money."
    terms = {
        "cat": "Kater",
        "garden": "Beete",
        "sofa": "Sofa",
        "They": "Alles",
        "just": "einfach",
        "want": "wollen",
    }
    found = best(running, text, {source: [target] for source, target in terms.items()})
    assert [target for _, target in used(text, found)] == list(terms.values())
    assert found.text.split()[1] == "Kater"


def test_a_stored_glossary_gives_the_same_translation_as_its_entries(running: Running):
    request = TranslateRequest(texts=[TEXT], glossary="animals")
    stored = running.translation.Translate(request).translations[0].hypotheses[0]
    assert stored == best(running, TEXT, TERMS)


def test_a_glossary_of_the_signed_bundle_is_found_by_its_name(running: Running):
    text = "The cat is sleeping."
    request = TranslateRequest(texts=[text], glossary="pets")
    found = running.translation.Translate(request).translations[0].hypotheses[0]
    assert used(text, found) == [("cat", "Mieze")]
    assert found == best(running, text, {"cat": ["Mieze"]})


def test_a_glossary_of_the_folder_replaces_that_of_the_bundle(running: Running):
    text = "The cat is sleeping."
    request = TranslateRequest(texts=[text], glossary="animals")
    found = running.translation.Translate(request).translations[0].hypotheses[0]
    assert used(text, found) == [("cat", "Kater")]


def test_the_glossaries_of_the_bundle_are_listed(running: Running):
    assert running.models.GetModel(GetModelRequest()).glossaries == ["animals", "pets"]
    with Client(f"127.0.0.1:{running.server.port}") as client:
        model = client.model("en-de")
        assert model.glossaries == ("animals", "pets")
        assert "animals, pets" in model_page(model)


def test_a_stream_ends_with_the_same_translation(running: Running):
    request = StreamTranslateRequest(text=TEXT, glossary_entries=entries(TERMS))
    pieces = list(running.translation.StreamTranslate(request))
    found = pieces[-1].translation.hypotheses[0]
    assert found == best(running, TEXT, TERMS)
    assert "".join(piece.delta for piece in pieces) == found.text


def test_terms_come_after_a_target_prefix(running: Running):
    text = "The cat is sleeping on the sofa."
    found = best(running, text, TERMS, target_prefixes=["Das Tier"])
    assert found.text.startswith("Das Tier")
    assert [target for _, target in used(text, found)] == ["Kater", "Couch"]


def test_terms_within_markup_are_translated_and_keep_it(running: Running):
    text = "<p>The <b>car</b> is red.</p>"
    found = best(running, text, {"car": ["Wagen"]}, markup=text_pb2.MARKUP_HTML)
    assert found.text == "<p>Der <b>Wagen</b> ist rot.</p>"
    assert not found.glossary_terms


def test_offsets_are_those_of_the_text_as_sent_in_the_unit_of_the_request(running: Running):
    text = f"\U0001f600 {TEXT}"
    found = best(running, text, TERMS, offset_unit=text_pb2.OFFSET_UNIT_UTF16_UNITS)
    wide, target = text.encode("utf-16-le"), found.text.encode("utf-16-le")
    first = found.glossary_terms[0]
    assert wide[2 * first.source_start : 2 * first.source_end].decode("utf-16-le") == "cat"
    assert target[2 * first.target_start : 2 * first.target_end].decode("utf-16-le") == "Kater"


def test_a_term_that_the_model_cannot_write_fails_its_text_alone(running: Running):
    request = TranslateRequest(
        texts=["Hello.", "The cat is sleeping. A dog.", "My dog."],
        glossary_entries=entries({"cat": ["Kater", "猫"], "dog": ["Hündchen"]}),
    )
    hello, cat, dog = running.translation.Translate(request).translations
    assert hello.hypotheses[0].text == "Hallo."
    assert cat.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert cat.error.message == (
        "texts[1]: glossary_entries[0].targets[1] has text that the model cannot write"
    )
    assert "Hündchen" in dog.hypotheses[0].text


def test_a_translation_without_room_for_a_term_says_so(running: Running):
    options = TranslateOptions(max_output_tokens=3)
    found = best(running, "The cat is sleeping.", {"cat": ["Hauskatzenkater"]}, options=options)
    [term] = found.glossary_terms
    assert (term.target, term.target_start, term.target_end) == ("", 0, 0)


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"glossary": "plants"}, grpc.StatusCode.NOT_FOUND, "no glossary of this name"),
        ({"glossary": "../animals"}, grpc.StatusCode.NOT_FOUND, "no glossary of this name"),
        ({"glossary": "broken"}, grpc.StatusCode.FAILED_PRECONDITION, "line 1.targets"),
        (
            {"glossary_entries": [GlossaryEntry(source="cat")]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "glossary_entries[0].targets: must have between 1 and 16 values, got 0",
        ),
        (
            {"glossary": "animals", "options": TranslateOptions(return_alternatives=True)},
            grpc.StatusCode.INVALID_ARGUMENT,
            "glossary: is for calls without alternatives only",
        ),
        (
            {
                "glossary_entries": [GlossaryEntry(source="cat", targets=["Kater"])],
                "options": TranslateOptions(return_alternatives=True),
            },
            grpc.StatusCode.INVALID_ARGUMENT,
            "glossary_entries: is for calls without alternatives only",
        ),
    ],
)
def test_a_bad_glossary_fails_the_call(running: Running, fields, code, message):
    request = TranslateRequest(texts=["The cat."], **fields)
    failure = failure_of(lambda: running.translation.Translate(request))
    assert failure.code() is code
    assert message in failure.details()


def test_a_model_without_an_aligner_is_refused(loop, settings):
    with running_server(loop, settings(bundles=TINY_BUNDLES)) as server:
        request = TranslateRequest(texts=["a"], glossary_entries=entries({"a": ["b"]}))
        failure = failure_of(lambda: server.translation.Translate(request))
        assert failure.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert failure.details().startswith("glossary_entries: ")


def test_a_text_has_the_same_translation_alone_and_among_others(running: Running):
    rng = random.Random(5)
    texts = [f"The {a} likes the {b}." for a in TERMS for b in ("man", "woman", *TERMS)]
    rng.shuffle(texts)
    request = TranslateRequest(texts=texts, glossary="animals")
    together = running.translation.Translate(request).translations
    for text, translation in zip(texts[:8], together, strict=False):
        assert translation.hypotheses[0].text == best(running, text, TERMS).text


def test_the_client_takes_glossaries_and_returns_the_terms(running: Running):
    with Client(f"127.0.0.1:{running.server.port}") as client:
        found = client.translate("The cat is sleeping.", glossary_entries={"cat": "Kater"})
        [term] = found.hypotheses[0].glossary_terms
        assert (term.source, term.target, term.target_start) == ("cat", "Kater", 4)
        assert client.translate("The cat is sleeping.", glossary="animals").text == found.text


def test_a_decomposed_translation_is_written_as_the_composed_one(running: Running):
    composed, decomposed = (
        best(running, "The cat sleeps.", {"cat": [term]}) for term in ("Café", "Cafe\u0301")
    )
    assert "Café" in composed.text
    assert decomposed == composed


def test_too_many_entries_are_refused(running: Running):
    request = TranslateRequest(texts=["cat"], glossary_entries=entries({"cat": ["x"]}) * 10_001)
    problem = "glossary_entries: at most 10000, got 10001"
    assert problem in failure_of(running.translation.Translate, request).details()


def test_entries_count_among_the_bytes_that_a_call_holds(running: Running, monkeypatch):
    answer, held = ServedModel.answer, list[int]()

    async def noted(model: ServedModel, call: Call[Any], may_wait: bool = False) -> list[Any]:
        held.append(running.server._memory.num_bytes)
        return await answer(model, call, may_wait)

    monkeypatch.setattr(ServedModel, "answer", noted)
    settings = TranslateRequest(glossary_entries=entries({"cat": ["Kater"] * 16}))
    request = TranslateRequest(texts=["The cat"], glossary_entries=settings.glossary_entries)
    wait_until(lambda: running.server._memory.num_bytes == 0)  # those of earlier calls
    running.translation.Translate(request)
    assert held[0] == request.ByteSize() + HELD_BYTES_PER_ENTRY + 16 * HELD_BYTES_PER_TRANSLATION
    held.clear()
    messages = [
        BulkTranslateRequest(settings=settings),
        BulkTranslateRequest(texts=[text_pb2.BulkText(text="The cat")]),
    ]
    assert len(list(each_result(running.translation.BulkTranslate(iter(messages))))) == 1
    assert held[0] >= HELD_BYTES_PER_ENTRY + 16 * HELD_BYTES_PER_TRANSLATION


def test_a_bulk_call_builds_its_glossary_once(running: Running, monkeypatch):
    built = []

    def counted(read: Any) -> Glossary:
        built.append(Glossary(read))
        return built[-1]

    monkeypatch.setattr(glossary_folder, "Glossary", counted)
    settings = TranslateRequest(glossary_entries=entries({"car": ["Wagen"]}))
    text = text_pb2.BulkText(text="The car is red.")
    requests = [BulkTranslateRequest(settings=settings), *[BulkTranslateRequest(texts=[text])] * 3]
    results = list(each_result(running.translation.BulkTranslate(iter(requests))))
    assert [each.result.hypotheses[0].text[:9] for each in results] == ["Der Wagen"] * 3
    assert len(built) == 1
