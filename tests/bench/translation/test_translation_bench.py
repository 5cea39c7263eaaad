import asyncio
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from bench import reporting
from bench.graphs import most_precise, read_manifest
from bench.loads import Refused
from bench.reporting import OURS, Figure, ratios_table
from bench.servers import flags_for, running_server
from bench.translation.bare_loop import BareLoop
from bench.translation.caller import translation_caller
from bench.translation.ceiling import against_bare_loop
from bench.translation.contest import Contest
from bench.translation.curves import draw_latency, draw_sweep
from bench.translation.quality import describe_quality, wanted_translations
from bench.translation.tuning import CTranslate2Setting, Trial, fastest, quickest, trials_table

TEXTS = ["The dog is barking.", "I like tea.", "Where is the station?"]
RIVAL = "rival"


class FakeCaller:
    """Answers at once, with one token per character of a text."""

    def __init__(self) -> None:
        self.num_texts = 0

    async def send(self, text: str) -> int:
        return await self.send_all([text])

    async def send_all(self, texts) -> int:
        self.num_texts += len(texts)
        await asyncio.sleep(0)
        return sum(map(len, texts))


def contest_between(ours, rival, single_rival) -> Contest:
    return Contest(
        ours=ours,
        rival=RIVAL,
        saturated_rival=rival,
        single_rival=single_rival,
        texts=TEXTS,
        rounds=2,
        seconds=0.01,
        capacity=50_000.0,
        single_seconds=0.001,
    )


@pytest.mark.parametrize("load", ["saturated", "batches", "poisson80"])
def test_both_servers_get_the_same_texts_as_often(load):
    ours, rival, single_rival = FakeCaller(), FakeCaller(), FakeCaller()

    figures = asyncio.run(contest_between(ours, rival, single_rival).measure(load))

    assert ours.num_texts == rival.num_texts > 0
    assert single_rival.num_texts == 0
    assert figures[0].comparison.ours.num_values == 2
    assert OURS in figures[0].client_cpu_shares


def test_single_texts_go_to_the_rival_in_its_quickest_setting():
    ours, rival, single_rival = FakeCaller(), FakeCaller(), FakeCaller()

    asyncio.run(contest_between(ours, rival, single_rival).measure("single"))

    assert single_rival.num_texts == ours.num_texts
    assert rival.num_texts == 0


def test_the_rivals_best_settings_are_chosen_for_each_load():
    slow, fast = (
        Trial(CTranslate2Setting("int8", 1, 2), 10.0, 0.001),
        Trial(CTranslate2Setting("float32", 2, 1, max_texts=16), 20.0, 0.002),
    )

    assert fastest([slow, fast]) is fast
    assert quickest([slow, fast]) is slow
    assert "--compute-type=float32 --inter-threads=2" in trials_table([slow, fast])
    assert "--max-texts=16" in fast.setting.flags()


def test_quality_is_bleu_and_the_share_of_texts_equal_to_those_of_the_exact_precision():
    references = {"a": ["x y z w", "other"], "b": ["u v w x"]}

    found = describe_quality(references, ["x y z w", "u v w x"], ["x y z w", "another"])

    assert list(found.values()) == [pytest.approx(100.0), 100.0, 50.0]


def test_a_model_that_copies_is_compared_with_what_its_tokenizer_writes(
    translation_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bench.translation.quality.sample_texts", lambda *_, **__: ["the   dog"])
    tokenizer = translation_bundle / "tokenizer.json"

    assert wanted_translations(Path(), tokenizer, copies=True) == {"the   dog": ["the dog"]}


def test_failures_are_shown_in_the_table():
    class Refusing(FakeCaller):
        async def send_all(self, texts) -> int:
            await super().send_all(texts)
            if self.num_texts % 2:
                raise Refused("RESOURCE_EXHAUSTED")
            return 1

    contest = contest_between(Refusing(), FakeCaller(), FakeCaller())
    table = ratios_table(asyncio.run(contest.measure("saturated")))

    assert "RESOURCE_EXHAUSTED" in table


def test_the_caller_counts_tokens_and_names_refusals(translation_bundle: Path):
    async def call() -> tuple[int, list[str], str]:
        async with translation_caller(server, beam_size=1) as caller:
            num_tokens = await caller.send_all(TEXTS)
            with pytest.raises(Refused) as refused:
                await caller.send("")
            return num_tokens, await caller.translate(TEXTS), str(refused.value)

    with running_server(*flags_for(translation_bundle)) as server:
        num_tokens, translations, refusal = asyncio.run(call())
        assert server.resident_bytes() > 1e6
        assert server.cpu_seconds() > 0

    assert num_tokens >= len(TEXTS)
    assert len(translations) == len(TEXTS)
    assert refusal == "error of a text"


def test_the_bare_loop_gives_a_sentence_the_same_tokens_alone_and_in_a_batch(
    translation_bundle: Path,
):
    tokenizer = Tokenizer.from_file(str(translation_bundle / "tokenizer.json"))
    sources = [tokenizer.encode(text).ids for text in TEXTS]
    loop = BareLoop(translation_bundle, "fp32")

    together = loop.translate(sources)
    alone = [loop.translate([source])[0] for source in sources]

    assert together == alone


def test_the_most_precise_precision_is_that_of_the_manifest(translation_bundle: Path):
    manifest = read_manifest(translation_bundle)
    assert most_precise(manifest) == "fp32"
    del manifest.precisions[0]
    assert most_precise(manifest) == "fp16"


def test_our_server_is_measured_against_the_bare_loop(translation_bundle: Path):
    arguments = Namespace(bundle=translation_bundle, beam_size=1, seconds=0.01, pairs=1)

    async def measure() -> list[Figure]:
        async with translation_caller(server, beam_size=1) as caller:
            return await against_bare_loop(caller, arguments, TEXTS * 30)

    with running_server(*flags_for(translation_bundle)) as server:
        figures = asyncio.run(measure())

    assert [figure.unit for figure in figures] == ["texts/s", "output tokens/s", "p50 ms"]
    assert all(figure.comparison.theirs.median > 0 for figure in figures)


def test_curves_are_drawn_for_every_server(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reporting, "RESULTS", tmp_path)
    callers: Any = {OURS: FakeCaller(), RIVAL: FakeCaller()}

    sweep = Namespace(pairs=1, seconds=0.02, docs=False)
    latency = Namespace(seconds=0.001, docs=False)

    swept = asyncio.run(draw_sweep("some", callers, TEXTS, sweep))
    timed = asyncio.run(draw_latency("some", callers, TEXTS * 50, 1e5, latency))

    assert {path.name for path in tmp_path.iterdir()} == {
        "some-throughput.svg",
        "some-latency.svg",
    }
    assert all(row["1"] > 0 and row["256"] > 0 for row in swept["texts_per_second"])
    assert len(timed[f"{RIVAL}, p99"]) == len(timed["texts_per_second"])
    assert RIVAL in capsys.readouterr().out


def test_ctranslate2_gets_our_weights_and_says_the_same(translation_bundle: Path, tmp_path: Path):
    ctranslate2 = pytest.importorskip(
        "ctranslate2", reason="ctranslate2 is installed by `make bench RIVALS=ctranslate2` only"
    )
    from bench.rivals.ctranslate2_model import convert

    model = ctranslate2.Translator(
        str(convert(translation_bundle, tmp_path / "model")), compute_type="float32"
    )
    tokenizer = Tokenizer.from_file(str(translation_bundle / "tokenizer.json"))
    encodings = [tokenizer.encode(text) for text in TEXTS]
    limit = json.loads((translation_bundle / "manifest.json").read_text())["limits"]
    results = model.translate_batch(
        [encoding.tokens for encoding in encodings],
        beam_size=1,
        max_decoding_length=limit["max_target_tokens"],
        return_end_token=True,
    )
    theirs = [[tokenizer.token_to_id(t) for t in result.hypotheses[0]] for result in results]

    assert theirs == BareLoop(translation_bundle, "fp32").translate(
        [encoding.ids for encoding in encodings]
    )
