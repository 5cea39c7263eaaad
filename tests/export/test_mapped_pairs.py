"""Training pairs that stay on disk: mapped files, filters, mixtures and batches."""

import bz2
import gzip
import lzma
import os
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from attendant_export.data.array_folders import open_or_build
from attendant_export.data.augmentation import parse_augmentation
from attendant_export.data.bad_lines import MAX_SHOWN, BadLines
from attendant_export.data.batches import group_by_tokens, pad, split_ascending
from attendant_export.data.mixtures import draw_rows, nums_in_epoch, spread_rows
from attendant_export.data.pair_filters import (
    NO_TEXT_FILTERS,
    LengthFilters,
    TextFilters,
    parse_text_filters,
)
from attendant_export.data.pair_texts import open_texts
from attendant_export.data.pair_tokenizer import PairTokenizer
from attendant_export.data.pair_tokens import open_tokens
from attendant_export.data.text_files import files_of, numbered_lines
from attendant_export.data.tokenizer import train_translation_tokenizer
from attendant_export.data.translation_data import (
    ExtraPairs,
    PairSource,
    TranslationData,
    TranslationTexts,
)
from attendant_export.data.translation_pairs import PairDataset
from attendant_export.train.distributed import ProcessGroup

from tests.support.pairs import encoded_pairs, pair_dataset

WORDS = ["we", "go", "and", "see", "Äpfel", "Hunde", "der", "Mann"]
COLOURS = [("red", "rot"), ("green", "grün"), ("blue", "blau"), ("black", "schwarz")]


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    return [
        tuple(" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(2))
        for _ in range(300)
    ]


@pytest.fixture(scope="module")
def tokenizer(pairs):
    return train_translation_tokenizer((text for pair in pairs for text in pair), 60)


def write(folder, *lines, name="train.tsv"):
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def texts_of(path, cache, filters=NO_TEXT_FILTERS, swap=False):
    found = open_texts(path, cache, swap, filters)
    return [found[i] for i in range(len(found))]


def rows_of(batches):
    return [
        (tuple(source), tuple(target))
        for batch in batches
        for source, target in zip(batch.source.tolist(), batch.target_out.tolist(), strict=True)
    ]


def test_batches_from_files_are_those_of_all_pairs_in_memory(pairs, tokenizer, tmp_path):
    encoded = [[tokenizer.encode(text).ids for text in pair] for pair in pairs]
    lengths = [max(map(len, example)) for example in encoded]

    batches = list(pair_dataset(tmp_path, pairs, tokenizer).batches(200, np.random.default_rng(3)))

    rng = np.random.default_rng(3)
    order = np.lexsort((rng.random(len(lengths)), np.array(lengths)))
    groups = group_by_tokens(lengths, 200, order)
    expected = [groups[i] for i in rng.permutation(len(groups))]
    assert len(batches) == len(expected)
    for batch, indices in zip(batches, expected, strict=True):
        assert torch.equal(batch.source, pad([encoded[i][0] for i in indices], 0))
        assert torch.equal(batch.target_out, pad([encoded[i][1] for i in indices], 0))
        assert batch.num_targets == sum(len(encoded[i][1]) for i in indices)


def test_ascending_lengths_are_split_as_any_lengths_are():
    lengths = np.sort(np.random.default_rng(1).integers(1, 40, 500))
    for limit in (1, 7, 39, 100, 100_000):
        found = [list(range(*each)) for each in split_ascending(lengths, limit)]
        assert found == group_by_tokens(lengths.tolist(), limit, np.arange(500))


@pytest.mark.parametrize("augment", [[], ["all"]])
def test_an_epoch_of_many_chunks_has_every_pair_once_in_an_order_of_its_own(
    pairs, tokenizer, tmp_path, augment
):
    whole, chunks = (
        pair_dataset(tmp_path, pairs, tokenizer, chunk_pairs=size) for size in (300, 64)
    )
    augmentation = parse_augmentation(augment)

    def epoch(dataset, seed):
        return rows_of(dataset.batches(10**9, np.random.default_rng(seed), augmentation))

    assert len(epoch(chunks, 1)) == len(pairs)
    assert epoch(chunks, 1) == epoch(chunks, 1) != epoch(chunks, 2)
    if not augment:
        texts = [
            sorted((tokenizer.decode(s), tokenizer.decode(t)) for s, t in epoch(each, 1))
            for each in (whole, chunks)
        ]
        assert texts[0] == texts[1] == sorted(pairs)
        estimated = chunks.num_batches(100)
        exact = len(list(chunks.batches(100, np.random.default_rng(1))))
        assert estimated == pytest.approx(exact, rel=0.1)


def test_the_shares_of_all_processes_are_the_whole_batch(pairs, tokenizer, tmp_path):
    dataset = pair_dataset(tmp_path, pairs[:7], tokenizer)

    def epoch(share):
        return list(dataset.batches(100, np.random.default_rng(1), share=share))

    shares = [epoch(ProcessGroup(rank, 3).share) for rank in range(3)]

    for number, batch in enumerate(epoch(slice(None))):
        for name in ("source", "target_in", "target_out"):
            rebuilt = torch.full_like(getattr(batch, name), -1)
            for rank, own in enumerate(shares):
                rebuilt[rank::3] = getattr(own[number], name)
            assert torch.equal(rebuilt, getattr(batch, name))
        assert {own[number].num_targets for own in shares} == {batch.num_targets}


def test_pairs_are_encoded_once_and_then_only_mapped(pairs, tokenizer, tmp_path, monkeypatch):
    first = encoded_pairs(tmp_path, pairs, tokenizer)
    encoder = "attendant_export.data.pair_tokenizer.PairTokenizer.encode"
    monkeypatch.setattr(encoder, lambda *_: pytest.fail("again"))

    second = encoded_pairs(tmp_path, pairs, tokenizer)

    assert isinstance(second.tokens.source.values.base, np.memmap)
    assert np.array_equal(first.tokens.source.values, second.tokens.source.values)
    assert [second.text(i) for i in range(len(second))] == pairs


def test_all_that_changes_the_result_has_files_of_its_own(pairs, tokenizer, tmp_path):
    path = write(tmp_path, "a b\tc d", "e\tf")
    other = train_translation_tokenizer(["a b c d"], 20)
    plain, limits = NO_TEXT_FILTERS, LengthFilters()

    def keys(swap=False, filters=plain, tokenizer=tokenizer, limits=limits):
        texts = open_texts(path, tmp_path / "cache", swap, filters)
        open_tokens(texts, PairTokenizer.of_run(tokenizer), tmp_path / "cache", limits)
        return {each.name for each in (tmp_path / "cache").iterdir() if each.is_dir()}

    sizes = [
        len(keys(**changes))
        for changes in (
            {},
            {"swap": True},
            {"filters": TextFilters(copies=True)},
            {"tokenizer": other},
            {"limits": LengthFilters(64)},
            {"limits": LengthFilters(max_ratio=2)},
            {},
        )
    ]
    write(tmp_path, "a b\tc d", "e\tg")

    assert sizes == [2, 4, 6, 7, 8, 9, 9]
    assert len(keys()) == 11


def cut(path):
    path.write_bytes(path.read_bytes()[:-2])


def change_a_byte(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("name", ["source", "target", "source.offsets", "rows", "index.json"])
@pytest.mark.parametrize("damage", [cut, change_a_byte, os.remove])
def test_damaged_files_are_named_and_written_anew(pairs, tokenizer, tmp_path, caplog, name, damage):
    whole = encoded_pairs(tmp_path, pairs, tokenizer).tokens.target.values.tolist()
    (folder,) = tmp_path.glob("tokens-*")
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    damage(folder / name)

    again = encoded_pairs(tmp_path, pairs, tokenizer)

    if (name, damage) != ("index.json", change_a_byte):  # That byte is the last line end.
        assert f"{folder} is damaged: " in caplog.text
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    assert again.tokens.target.values.tolist() == whole


def test_a_cut_writing_leaves_nothing_that_is_used(tmp_path):
    def cut_writing(writer):
        writer.append("numbers", np.arange(3))
        raise KeyboardInterrupt

    def whole_writing(writer):
        writer.append("numbers", np.arange(2))
        return {"is_whole": True}

    (tmp_path / "folder.new").mkdir()
    (tmp_path / "folder.new" / "index.json").write_text("of a process that was killed")

    with pytest.raises(KeyboardInterrupt):
        open_or_build(tmp_path / "folder", cut_writing)
    assert not list(tmp_path.glob("folder*"))
    found = open_or_build(tmp_path / "folder", whole_writing)

    assert found.arrays["numbers"].tolist() == [0, 1]
    assert found.facts == {"is_whole": True}


def test_of_two_that_need_the_same_files_one_writes_them(tmp_path):
    barrier, calls, found = threading.Barrier(2), [], []

    def build(writer):
        calls.append(1)
        writer.append("numbers", np.arange(1000))
        return {}

    def open_files():
        barrier.wait()
        found.append(open_or_build(tmp_path / "folder", build))

    threads = [threading.Thread(target=open_files) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(calls) == 1
    assert [each.arrays["numbers"].sum() for each in found] == [499_500, 499_500]


def test_no_pairs_at_all_are_files_as_well(tokenizer, tmp_path):
    dataset = pair_dataset(tmp_path, [], tokenizer)

    assert (len(dataset), dataset.num_batches(100)) == (0, 0)
    assert list(dataset.batches(100, np.random.default_rng(0))) == []


def test_pairs_are_left_out_for_the_reasons_that_were_asked_for(tmp_path):
    lines = ["a\tb", "a\tc", "a\tb", "same\tsame", " \tb", "a\t", "", "a\tb"]
    path = write(tmp_path, *lines)

    assert texts_of(path, tmp_path) == [
        ("a", "b"),
        ("a", "c"),
        ("a", "b"),
        ("same", "same"),
        ("a", "b"),
    ]
    filters = parse_text_filters(["copies", "duplicates"])
    assert texts_of(path, tmp_path, filters) == [("a", "b"), ("a", "c")]
    found = open_texts(path, tmp_path, False, filters)
    assert found.left_out == {"empty side": 3, "copies": 1, "duplicates": 2}
    assert [found.place(i) for i in range(len(found))] == [(path, 1), (path, 2)]


def test_pairs_in_other_languages_are_left_out(tmp_path):
    right = "The weather is very nice today.\tDas Wetter ist heute sehr schön."
    wrong = "Das Wetter ist heute sehr schön.\tThe weather is very nice today."
    path = write(tmp_path, right, wrong, "42\t42")

    found = open_texts(path, tmp_path, False, parse_text_filters(["languages:en-de"]))

    assert [found[i][0] for i in range(len(found))] == ["The weather is very nice today.", "42"]
    assert found.left_out == {"languages": 1}


def test_pairs_of_unequal_lengths_are_left_out_by_their_tokens(tmp_path):
    tokenizer = train_translation_tokenizer(["a b c d e f"], 40)
    lines = ["a b\ta b c d", "a b\ta b c d e", "a\ta", " ".join("abcdefabcd") + "\ta b"]
    texts = open_texts(write(tmp_path, *lines), tmp_path, False, NO_TEXT_FILTERS)

    limits = LengthFilters(8, max_ratio=2)
    found = open_tokens(texts, PairTokenizer.of_run(tokenizer), tmp_path, limits)

    assert [found.text(i) for i in range(len(found))] == [("a b", "a b c d"), ("a", "a")]
    too_long = "more than 8 tokens on a side"
    assert found.left_out == {too_long: 1, "length ratio": 1}
    assert found.too_long.first == [(tmp_path / "train.tsv", 4, too_long)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("short", "--filter short: want copies, duplicates or languages:SOURCE-TARGET"),
        ("copies:2", "--filter copies:2: want copies, "),
        ("languages", "--filter languages: want languages:SOURCE-TARGET, such as en-de"),
        ("languages:en-", "--filter languages:en-: want languages:SOURCE-TARGET"),
        ("languages:en-xx", "--filter languages:en-xx: xx is not one of the languages"),
    ],
)
def test_a_filter_that_is_none_is_refused(text, problem):
    with pytest.raises(ValueError, match=f"^{problem}"):
        parse_text_filters([text])


def test_a_filter_whose_library_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the extra attendant-export\[detection\]"):
        parse_text_filters(["languages:en-de"])


def test_a_ratio_below_one_is_refused():
    with pytest.raises(ValueError, match=r"--max-length-ratio 0.5: want a number of at least 1"):
        LengthFilters(max_ratio=0.5)


@pytest.mark.parametrize(
    ("weights", "temperature", "expected"),
    [
        (None, 1, [900, 90, 10]),
        (None, 1e9, [334, 333, 333]),
        (None, 2, [703, 222, 75]),  # 30, 9.49 and 3.16 of 42.65 parts
        ([1, 1, 2], 1, [250, 250, 500]),
        ([1e-9, 1, 1], 1, [0, 500, 500]),
    ],
)
def test_sources_share_an_epoch_by_weights_or_by_temperature(weights, temperature, expected):
    nums = nums_in_epoch([900, 90, 10], weights, temperature)

    assert sum(nums) == 1000
    assert nums == pytest.approx(expected, abs=1)


def test_a_source_without_pairs_has_no_share():
    assert nums_in_epoch([0, 4], [1, 1]) == [0, 4]
    assert nums_in_epoch([0, 4], temperature=5) == [0, 4]
    assert nums_in_epoch([0, 0], [1, 1]) == [0, 0]


def test_a_source_that_comes_often_has_every_pair_equally_often():
    rows = Counter(draw_rows(10, 25, np.random.default_rng(0)).tolist())
    assert set(rows) == set(range(10))
    assert Counter(rows.values()) == {2: 5, 3: 5}
    assert draw_rows(3, 6, np.random.default_rng(0)).tolist() == [0, 1, 2, 0, 1, 2]
    assert spread_rows(10, 15).tolist() == [*range(10), 0, 2, 4, 6, 8]
    assert spread_rows(0, 0).tolist() == []


def test_an_epoch_mixes_files_by_weight_and_draws_anew(tmp_path):
    large = write(tmp_path, *(f"we go {i}\twir {i}" for i in range(90)), name="large.tsv")
    small = write(tmp_path, *(f"see {i}\tund {i}" for i in range(10)), name="small.tsv")
    data = TranslationData((PairSource(large, 1), PairSource(small, 3)), tmp_path / "valid.tsv")
    texts = TranslationTexts(data, tmp_path / "cache")
    tokenizer = texts.train_tokenizer()
    dataset = texts.dataset(tokenizer)

    def epoch(seed):
        batches = dataset.batches(100, np.random.default_rng(seed))
        return Counter(tokenizer.decode(source) for source, _ in rows_of(batches))

    counts = epoch(1)
    assert sum(n for text, n in counts.items() if text.startswith("see")) == 75
    assert sum(n for text, n in counts.items() if text.startswith("we")) == 25
    assert {n for text, n in counts.items() if text.startswith("see")} == {7, 8}
    assert counts == epoch(1) != epoch(2)


@pytest.mark.parametrize(
    ("weights", "temperature", "problem"),
    [
        ([1, None], 1, "--train: want a weight for every file or for none"),
        ([1, 0], 1, "--train: want weights of more than 0"),
        ([1, float("nan")], 1, "--train: want weights of more than 0"),
        ([1, 2], 2, "--temperature: is for files without weights"),
        ([None, None], 0.5, "--temperature 0.5: want a number of at least 1"),
    ],
)
def test_a_mixture_that_says_nothing_clear_is_refused(tmp_path, weights, temperature, problem):
    sources = tuple(PairSource(tmp_path / "a.tsv", weight) for weight in weights)
    with pytest.raises(ValueError, match=problem):
        TranslationData(sources, tmp_path / "valid.tsv", temperature=temperature)


def test_a_tokenizer_learns_from_pairs_that_are_evenly_spread(tmp_path):
    path = write(tmp_path, *(f"s{i}\tt{i}" for i in range(10)))
    texts = TranslationTexts(TranslationData((PairSource(path),), path), tmp_path)

    assert list(texts.sample(3)) == ["s0", "t0", "s3", "t3", "s6", "t6"]
    assert len(list(texts.sample())) == 20


def test_changed_pairs_come_from_the_text_of_their_own_file(tmp_path):
    first = write(tmp_path, *(f"{e.title()}.\t{d}." for e, d in COLOURS), name="first.tsv")
    second = write(tmp_path, "Yellow\t" + "gelb " * 200, "White.\tweiß.", name="second.tsv")
    sources = (PairSource(first), PairSource(second))
    augmentation = parse_augmentation(["lower-case:1"])
    data = TranslationData(sources, first, augmentation=augmentation, skip_bad_lines=True)
    texts = TranslationTexts(data, tmp_path / "cache")
    tokenizer = texts.train_tokenizer()
    dataset: PairDataset = texts.dataset(tokenizer)

    rows = rows_of(dataset.batches(100, np.random.default_rng(0), data.augmentation))

    found = {(tokenizer.decode(source), tokenizer.decode(target)) for source, target in rows}
    assert found == {(f"{e}.", f"{d}.") for e, d in [*COLOURS, ("white", "weiß")]}


def test_a_folder_is_all_its_files_in_the_order_of_their_names(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "c.tsv.xz").write_bytes(lzma.compress(b"c\t3\n"))
    (folder / "a.tsv.bz2").write_bytes(bz2.compress(b"a\t1\n"))
    (folder / "b.tsv.gz").write_bytes(gzip.compress(b"b\t2\n"))
    write(folder, "d\t4", name="d.tsv")
    write(folder, "hidden", name=".hidden")

    assert texts_of(folder, tmp_path, swap=True) == [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")]


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: the folder has no files"):
        files_of(tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffone\r\n\ufefftwo\n", encoding="utf-8")
    lines = list(numbered_lines(tmp_path / "a.txt", BadLines()))
    assert lines == [(1, "one"), (2, "\ufefftwo")]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.gz", b"plain text", r"a\.gz: damaged after line 0: Not a gzipped file"),
        ("a.gz", gzip.compress(b"one\n" * 999)[:-9], r"a\.gz: damaged after line \d+: Compressed"),
        ("a.xz", b"plain text", r"a\.xz: damaged after line 0: "),
        ("a.xz", lzma.compress(b"one\n")[:-9], r"a\.xz: damaged after line \d: "),
        ("a.bz2", b"plain text", r"a\.bz2: damaged after line 0: "),
        ("a.zst", b"", r"a\.zst: \.zst is not supported, only \.gz, \.xz, \.bz2 and plain"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        list(numbered_lines(tmp_path / name, BadLines()))


def bad_texts(tmp_path, skip_bad_lines):
    """Training text with wrong lines in a folder and in a file of further pairs."""
    folder = tmp_path / "web"
    folder.mkdir(exist_ok=True)
    (folder / "a.tsv").write_bytes(b"a\tb\nalone\n\tb\n\xff\tb\n")
    (folder / "b.tsv").write_bytes(b"c\td\n" + b"alone\n" * 30 + b"e\t" + b"f " * 200 + b"\n")
    write(tmp_path, "g\th\ti", "j\tk", name="more.tsv")
    data = TranslationData(
        (PairSource(folder),),
        tmp_path / "valid.tsv",
        extra=(ExtraPairs(tmp_path / "more.tsv"),),
        skip_bad_lines=skip_bad_lines,
    )
    return TranslationTexts(data, tmp_path / "cache")


def test_wrong_lines_of_all_training_files_are_refused_with_their_places(tmp_path):
    for _ in range(2):  # Also when the files of encoded pairs are there.
        with pytest.raises(ValueError) as error:
            bad_texts(tmp_path, skip_bad_lines=False)
        first, *rows, last = str(error.value).splitlines()

        assert first == (
            "34 lines (32 not two tab-separated texts, 1 empty side, 1 not UTF-8) cannot be used; "
            "--skip-bad-lines leaves them out and goes on:"
        )
        assert rows[:4] == [
            f"{tmp_path}/web/a.tsv:2: not two tab-separated texts",
            f"{tmp_path}/web/a.tsv:3: empty side",
            f"{tmp_path}/web/a.tsv:4: not UTF-8",
            f"{tmp_path}/web/b.tsv:2: not two tab-separated texts",
        ]
        assert len(rows) == MAX_SHOWN
        assert last == "and 14 lines more"


def test_lines_that_are_too_long_are_refused_with_their_places(tokenizer, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    write(folder, "a\tb", "c\td", name="a.tsv")
    write(folder, "e\tf", "g\t" + "h " * 200, name="b.tsv")
    data = TranslationData((PairSource(folder),), tmp_path / "valid.tsv")

    with pytest.raises(ValueError) as error:
        TranslationTexts(data, tmp_path / "cache").dataset(PairTokenizer.of_run(tokenizer))

    place = f"{folder}/b.tsv:2: more than 128 tokens on a side"
    assert str(error.value).splitlines()[1:] == [place]


def test_wrong_lines_are_left_out_and_counted_by_kind_when_asked_for(tokenizer, tmp_path, caplog):
    caplog.set_level("INFO")

    dataset = bad_texts(tmp_path, skip_bad_lines=True).dataset(PairTokenizer.of_run(tokenizer))

    assert len(dataset) == 3
    assert caplog.messages == [
        "web: 2 pairs; 34 of 36 lines are left out: 31 not two tab-separated texts, 1 empty side, "
        "1 not UTF-8, 1 more than 128 tokens on a side",
        "more.tsv: 1 pair; 1 of 2 lines are left out: 1 not two tab-separated texts",
    ]
