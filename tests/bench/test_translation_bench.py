import asyncio
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from bench import reporting
from bench.bare_loop import BareLoop
from bench.loads import LoadResult, Refused
from bench.serving import running_server
from bench.translation_ceilings import against_bare_loop
from bench.translation_curves import draw_latency, draw_sweep
from bench.translation_engines import CTranslate2Setting, connected
from bench.translation_loads import OURS, Contest, Figure
from bench.translation_quality import Sample, describe_quality, translate_all
from bench.translation_report import quality_table, ratios_table, trials_table
from bench.translation_tuning import Trial, fastest, quickest

TEXTS = ["The dog is barking.", "I like tea.", "Where is the station?"]
RIVAL = "rival"


class FakeCaller:
    """Answers at once, with as many tokens as a text has characters."""

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


def test_unknown_loads_are_refused_with_the_names_of_all():
    with pytest.raises(ValueError, match="saturated, batches, single"):
        asyncio.run(contest_between(*[FakeCaller()] * 3).measure("nothing"))


def test_the_rivals_best_settings_are_chosen_for_each_load():
    slow, fast = (
        Trial(CTranslate2Setting("int8", 1, 2), 10.0, 0.001),
        Trial(CTranslate2Setting("float32", 2, 1, max_texts=16), 20.0, 0.002),
    )

    assert fastest([slow, fast]) is fast
    assert quickest([slow, fast]) is slow
    assert "float32, 2×1 threads, 16 texts" in trials_table([slow, fast])
    assert "--max-texts=16" in fast.setting.flags()


def test_quality_is_bleu_or_exact_copies_beside_the_share_equal_to_fp32():
    translated = Sample(["a", "b"], [["x y z w"], ["u v w x"]], copies=False)
    copied = Sample(["a", "b"], [["a"], ["b"]], copies=True)

    bleu = describe_quality(translated, ["x y z w", "u v w x"], ["x y z w", "other"])
    copies = describe_quality(copied, ["a", "c"], ["a", "c"])

    assert bleu == {"BLEU": pytest.approx(100.0), "same as fp32": 0.5}
    assert copies == {"exact copies": 0.5, "same as fp32": 1.0}
    assert "| 100.0 | 50.0% |" in quality_table({"ours": bleu})


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
        async with connected(server, beam_size=1) as caller:
            num_tokens = await caller.send_all(TEXTS)
            with pytest.raises(Refused) as refused:
                await caller.send("")
            return num_tokens, await translate_all(caller, TEXTS), str(refused.value)

    with running_server(f"--bundles={translation_bundle.parent.parent}") as server:
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


def test_our_server_is_measured_against_the_bare_loop(translation_bundle: Path):
    arguments = Namespace(bundle=translation_bundle, beam_size=1, seconds=0.01, pairs=1)

    async def measure() -> list[Figure]:
        async with connected(server, beam_size=1) as caller:
            return await against_bare_loop(caller, arguments, TEXTS * 30)

    with running_server(f"--bundles={translation_bundle.parent.parent}") as server:
        figures = asyncio.run(measure())

    assert [figure.unit for figure in figures] == ["texts/s", "output tokens/s", "p50 ms"]
    assert all(figure.comparison.theirs.median > 0 for figure in figures)


def test_curves_are_drawn_for_every_server(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reporting, "RESULTS", tmp_path)
    callers: Any = {OURS: FakeCaller(), RIVAL: FakeCaller()}

    swept = asyncio.run(draw_sweep("some", callers, TEXTS, 1, 0.02, into_docs=False))
    timed = asyncio.run(draw_latency("some", callers, TEXTS * 50, 1e5, 0.001, into_docs=False))

    assert {path.name for path in tmp_path.iterdir()} == {
        "some-throughput.svg",
        "some-latency.svg",
    }
    assert swept[OURS]["concurrency"][-1] == 256
    assert len(timed[RIVAL]["p99_seconds"]) == len(timed[RIVAL]["texts_per_second"])
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


def test_hugging_face_makes_outputs_of_the_lengths_that_are_wanted():
    pytest.importorskip(
        "transformers", reason="transformers is installed by `make bench RIVALS=...` only"
    )
    from bench.rivals.hugging_face_marian import RandomMarian

    sizes = {
        "vocab_size": 64,
        "d_model": 16,
        "num_heads": 2,
        "d_feed_forward": 32,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
    }
    for beam_size in (1, 4):
        marian = RandomMarian(sizes, beam_size)
        assert marian.translate([[5, 6, 2], [7, 2]], [4, 9]) == 13


def test_benches_say_how_they_are_used():
    for module in ("translation", "interference", "soak", "h2load"):
        command = [sys.executable, "-m", f"bench.{module}", "--help"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
        assert "--data-dir" in shown.stdout


def test_a_load_without_answers_has_no_percentile():
    assert LoadResult(seconds=1.0).latency(50) != LoadResult(seconds=1.0).latency(50)
