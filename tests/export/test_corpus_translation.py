"""Which texts of a corpus are translated, which pairs are kept, and where they are written.

No server is involved; tests/e2e/test_translated_corpora.py has one.
"""

import gzip
import lzma
import os
import string
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from attendant_export.__main__ import main
from attendant_export.corpora import output as output_module
from attendant_export.corpora.output import OutputRecord, PairOutput
from attendant_export.corpora.selection import CUT, LOW_SCORE, PairSelection
from attendant_export.corpora.texts import TAB, CorpusFiles
from attendant_export.corpora.translation import describe
from attendant_export.corpora.translator import FAILED, REFUSED, Translated
from attendant_export.data.bad_lines import BadLines
from attendant_export.data.pair_filters import COPIES, RATIO, LengthFilters, TextFilters
from attendant_export.data.pair_texts import open_texts
from attendant_export.data.text_files import numbered_pairs
from hypothesis import given, settings
from hypothesis import strategies as st

SETTINGS = {"--text": [["english.txt", "0" * 64]], "--beam-size": 4, "--filter": ["copies"]}
TEXTS = st.text(string.ascii_letters + string.punctuation + " äß\u2028", max_size=12)
PAIRS = st.tuples(TEXTS, TEXTS)
BLOCKS = st.lists(st.lists(PAIRS, max_size=4), max_size=4)
TRANSLATED = st.builds(
    Translated,
    text=TEXTS,
    score=st.sampled_from([-2.0, -1.0, 0.0]),
    num_source_tokens=st.integers(1, 20),
    num_target_tokens=st.integers(1, 20),
    is_complete=st.booleans(),
    reason=st.sampled_from([None, None, REFUSED, FAILED]),
)
SELECTIONS = [
    PairSelection(TextFilters(copies), LengthFilters(max_tokens, max_ratio), min_score)
    for copies in (True, False)
    for max_tokens in (4, 20)
    for max_ratio in (None, 1.0, 2.5)
    for min_score in (None, -1.0)
]


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def texts_of(corpus):
    return [text.text for text in corpus.texts()]


@contextmanager
def output_file(name="pairs.tsv"):
    """A path in a new folder, without waiting for the disk, which takes most of the time."""
    with tempfile.TemporaryDirectory() as folder, patch("os.fsync"):
        yield Path(folder) / name


def append(output, blocks, settings=SETTINGS):
    """Write blocks of pairs, each of as many texts, and leave the file unfinished."""
    with output.opened(lambda: settings) as opened:
        for block in blocks:
            opened.record.num_texts += len(block)
            opened.append(block)
        return opened.record


def complete(output, settings=SETTINGS):
    with output.opened(lambda: settings) as opened:
        opened.append([])
        opened.finish()


def content(blocks):
    return "".join(f"{source}\t{target}\n" for block in blocks for source, target in block)


def test_texts_are_the_lines_of_files_and_folders_in_order(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.gz").write_bytes(gzip.compress("\ufeffone\r\n\ntwo".encode()))
    (folder / "b.xz").write_bytes(lzma.compress(b"three\n"))
    write(folder / ".hidden", "four")
    corpus = CorpusFiles((folder, write(tmp_path / "more.txt", " \t", "five", "a\tb")))

    check = corpus.check(finds_repeated=False)

    assert texts_of(corpus) == ["one", "two", "three", "five"]
    assert [text.text for text in corpus.texts(start=2)] == ["three", "five"]
    assert (check.num_texts, check.left_out) == (4, {"blank": 2, TAB: 1})


def test_a_column_of_pairs_is_read_and_lines_without_it_are_bad(tmp_path):
    file = write(tmp_path / "pairs.tsv", "a\tb", "c", "d\te\tf", "g\t", "\t")
    corpus = CorpusFiles((file,), column=2)

    check = corpus.check(finds_repeated=False)

    assert texts_of(corpus) == ["b", "e"]
    assert check.left_out == {"blank": 2, "no column 2": 1}
    assert [line.number for line in check.bad_lines.first] == [2]


def test_repeated_texts_are_found_over_all_files_before_anything_is_translated(tmp_path):
    files = write(tmp_path / "a", "x", "y", "x"), write(tmp_path / "b", "y", "z")

    check = CorpusFiles(files).check(finds_repeated=True)

    assert [check.is_translated(i) for i in range(5)] == [True, True, False, False, True]
    assert [check.num_translated_before(i) for i in (0, 2, 4, 5)] == [0, 2, 2, 3]
    assert check.left_out == {"duplicates": 2}


@given(selection=st.sampled_from(SELECTIONS), text=TEXTS, translated=TRANSLATED)
def test_each_kept_pair_passes_every_filter_and_each_other_pair_fails_the_named_one(
    selection, text, translated
):
    pair = text, translated.text
    lengths = translated.num_source_tokens, translated.num_target_tokens
    longer, shorter = max(lengths) - 1, min(lengths) - 1
    limits, lowest = selection.length_filters, selection.min_score
    fails = {
        REFUSED: translated.reason == REFUSED,
        FAILED: translated.reason == FAILED,
        CUT: not translated.is_complete,
        "empty side": not (pair[0].strip() and pair[1].strip()),
        LOW_SCORE: lowest is not None and translated.score < lowest,
        limits.too_long: max(lengths) > limits.max_tokens,
        RATIO: limits.max_ratio is not None and longer > limits.max_ratio * shorter,
        COPIES: selection.text_filters.copies and pair[0].strip() == pair[1].strip(),
    }

    reason = selection.reason(pair, translated)

    assert fails[reason] if reason else not any(fails.values())


@settings(max_examples=15, deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TRANSLATED), max_size=8))
def test_a_training_with_the_same_filters_reads_all_kept_pairs_as_they_are(pairs):
    filters = TextFilters(copies=True)
    selection = PairSelection(filters)
    found = [((text, each.text), each) for text, each in pairs]
    kept = [pair for pair, each in found if selection.reason(pair, each) is None]
    with output_file() as path:
        append(PairOutput(path), [kept])
        complete(PairOutput(path))

        read = open_texts(path, path.parent / "cache", False, filters)

        assert [read[i] for i in range(len(read))] == kept
        assert not read.left_out


def test_a_text_that_is_copied_as_a_whole_has_no_ratio_of_tokens():
    selection = PairSelection(length_filters=LengthFilters(max_ratio=2.0))

    assert selection.reason(("12:30", "12:30"), Translated("12:30", is_complete=True)) is None


@given(
    before=BLOCKS, after=BLOCKS, torn=st.binary(max_size=20), name=st.sampled_from(["p", "p.gz"])
)
def test_a_file_continues_after_the_last_recorded_text_whatever_a_kill_has_left(
    before, after, torn, name
):
    with output_file(name) as path:
        record = append(PairOutput(path), before)
        with path.with_name(f".{name}.part").open("ab") as part:
            part.write(torn)  # Killed before the record of these bytes was written.

        with PairOutput(path).opened(lambda: SETTINGS) as opened:
            assert opened.record == record or not before
        append(PairOutput(path), after)
        assert not path.exists()
        complete(PairOutput(path))

        written = path.read_bytes()
        text = gzip.decompress(written) if name.endswith(".gz") else written
        assert text.decode() == content([*before, *after])


def test_a_complete_file_is_not_written_again_and_not_cut(tmp_path):
    path = tmp_path / "pairs.tsv"
    complete(PairOutput(path))
    path.write_text("edited\tbearbeitet\n", encoding="utf-8")

    with PairOutput(path).opened(lambda: SETTINGS) as opened:
        assert opened.is_complete

    assert path.read_text(encoding="utf-8") == "edited\tbearbeitet\n"


def test_a_compressed_file_without_pairs_can_be_read_by_other_programs(tmp_path):
    complete(PairOutput(tmp_path / "pairs.tsv.gz"))

    assert (tmp_path / "pairs.tsv.gz").read_bytes() == gzip.compress(b"", mtime=0)


def test_each_new_name_is_on_the_disk_before_the_next_step(tmp_path, monkeypatch):
    listed = []

    def sync(path):
        if path.is_dir():  # the others are the files themselves
            listed.append({each.name for each in path.iterdir()})

    monkeypatch.setattr(output_module, "sync", sync)
    complete(PairOutput(tmp_path / "p"))

    lock = {".p.lock"}
    assert listed == [lock | {".p.part"}, lock | {".p.part", ".p.json"}, lock | {"p", ".p.json"}]


def test_an_output_of_other_settings_is_refused_by_their_names(tmp_path):
    output = PairOutput(tmp_path / "pairs.tsv")
    append(output, [[("a", "b")]])
    changed = SETTINGS | {"--beam-size": 1, "--text": [["english.txt", "1" * 64]], "--seed": 2}

    with pytest.raises(ValueError) as refused:
        append(output, [], changed)

    assert "was begun with other values of --text, --beam-size, --seed; " in str(refused.value)
    assert content([[("a", "b")]]) == (tmp_path / ".pairs.tsv.part").read_text(encoding="utf-8")


def test_a_file_of_another_origin_is_not_overwritten(tmp_path):
    path = write(tmp_path / "pairs.tsv", "a\tb")

    with (
        pytest.raises(ValueError, match="exists and was not written by this command"),
        PairOutput(path).opened(lambda: pytest.fail("the corpus is read")),
    ):
        pass


def test_a_removed_output_begins_anew_with_any_settings(tmp_path):
    path = tmp_path / "pairs.tsv"
    append(PairOutput(path), [[("a", "b")]])
    complete(PairOutput(path))
    path.unlink()

    assert append(PairOutput(path), [], {"--seed": 2}) == OutputRecord({"--seed": 2})


@pytest.mark.parametrize("damage", ["record", "part"])
def test_damaged_files_of_an_output_are_named(damage, tmp_path):
    output = PairOutput(tmp_path / "pairs.tsv")
    append(output, [[("a", "b")]])
    damaged = tmp_path / (".pairs.tsv.json" if damage == "record" else ".pairs.tsv.part")
    os.truncate(damaged, 2)

    with pytest.raises(ValueError, match=f"{damaged} is damaged.* to begin anew"):
        append(output, [])


def test_a_second_process_cannot_write_the_same_output(tmp_path):
    output = PairOutput(tmp_path / "pairs.tsv")
    with (
        output.opened(lambda: SETTINGS),
        pytest.raises(ValueError, match="another process is writing it"),
    ):
        append(PairOutput(output.path), [])


def test_written_pairs_have_no_bad_lines(tmp_path):
    path = tmp_path / "pairs.tsv"
    append(PairOutput(path), [[("a\u2028b", "c\x0bd")]])
    complete(PairOutput(path))
    bad_lines = BadLines()

    assert [pair for _, pair in numbered_pairs(path, bad_lines)] == [("a\u2028b", "c\x0bd")]
    assert not bad_lines.counts


def test_the_report_counts_what_is_left_out_and_shows_low_scores():
    scores = Counter({"-0.2": 40, "-0.5": 35, "-1.3": 20, "-3.1": 5})
    record = OutputRecord(
        {}, "m/1", 110, 98, left_out=Counter({COPIES: 2, "blank": 10}), scores=scores
    )

    assert describe(record) == (
        "98 pairs; left out: 2 copies, 10 blank\n"
        "mean log-probability of a token: 5% below -3.0, 25% below -1.2, 50% below -0.4"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "one of the arguments --bundle --target is required"),
        ("--bundle=a --target=b", "argument --target: not allowed with argument --bundle"),
        ("--target=localhost:1", "--target: needs --model, the name of the model"),
        ("--target=localhost:1 --model=m --num-threads=1", "--num-threads: is for --bundle only"),
        ("--bundle=a --model=m", "--model: is for --target only"),
        ("--bundle=a --top-k=3", "--top-k: is for --sampling-temperature only"),
        (
            "--bundle=a --sampling-temperature=1 --beam-size=2",
            "--beam-size: is for searches, not for --sampling-temperature",
        ),
        ("--bundle=a --top-k=257", "257 is not an integer from 1 to 256"),
        ("--bundle=a --min-score=1", "1 is not a number from -1000 to 0"),
        ("--bundle=a --max-length-ratio=0.5", "--max-length-ratio 0.5: want a number of at least"),
        ("--bundle=a --filter=names", "--filter names: want copies, duplicates or languages"),
        ("--bundle=a --output=pairs.xz", "--output pairs.xz: only .gz and plain files can be"),
        ("--bundle=a --output={folder}", "--output {folder}: is a folder, want a file"),
        ("--bundle=a --text=missing.txt", "missing.txt: no such file or folder"),
        ("--bundle={folder}", "{folder} is not a bundle: it has no manifest.json"),
    ],
)
def test_bad_options_are_refused_before_anything_is_translated(options, message, tmp_path, capsys):
    file = write(tmp_path / "english.txt", "one")
    command = f"translate-corpus --data-dir {tmp_path} --text {file} --output {tmp_path}/out.tsv"

    with pytest.raises(SystemExit) as ended:
        main([*command.split(), *options.format(folder=tmp_path).split()])

    assert ended.value.code in (1, 2)
    error = capsys.readouterr().err
    assert message.format(folder=tmp_path) in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == ["english.txt"]


def test_bad_lines_and_a_corpus_without_texts_are_refused(tmp_path, capsys):
    file = tmp_path / "english.txt"
    file.write_bytes(b"one\nt\two\n\xff\n")
    command = f"translate-corpus --text {file} --output {tmp_path}/out.tsv --target 127.0.0.1:1"
    command += " --model m"

    with pytest.raises(SystemExit):
        main(command.split())
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"{file}:2: tab in a text; --column N reads one column",
        f"{file}:3: not UTF-8",
    ]
    with pytest.raises(SystemExit):
        main([*command.split(), "--skip-bad-lines", "--column=2"])
    assert "the server failed: " in capsys.readouterr().err
    file.write_bytes(b" \n\n")
    with pytest.raises(SystemExit):
        main(command.split())
    assert f"{file}: no text to translate" in capsys.readouterr().err
