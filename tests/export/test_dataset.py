import gzip

import numpy as np
import pytest
import torch
from attendant_export.data.bad_lines import BadLines
from attendant_export.data.batches import (
    encode_in_pieces,
    encode_whole,
    group_by_tokens,
    pad,
    shuffled_batches,
)
from attendant_export.data.masked_text import MaskedDataset
from attendant_export.data.similar_pairs import SimilarPairs, paraphrase_pairs
from attendant_export.data.text_files import (
    draw_texts,
    group_references,
    join_paragraphs,
    read_documents,
    read_pairs,
)
from attendant_export.data.tokenizer import train_bert_tokenizer, train_translation_tokenizer

from tests.support.pairs import pair_dataset

PAIRS = [
    ("The dog barks.", "Der Hund bellt."),
    ("The cat sleeps.", "Die Katze schläft."),
    ("The cat is asleep.", "Die Katze schläft."),
    ("We go.", "Wir gehen."),
]
TEXTS = [text for pair in PAIRS for text in pair]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bert_tokenizer(TEXTS * 3, 120)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_pairs_are_read_from_a_gzipped_file_in_either_direction(tmp_path):
    path = tmp_path / "pairs.tsv.gz"
    path.write_bytes(gzip.compress("dog\tHund\ncat\tKätzchen\n".encode()))
    assert read_pairs(path) == [("dog", "Hund"), ("cat", "Kätzchen")]
    assert read_pairs(path, swap=True) == [("Hund", "dog"), ("Kätzchen", "cat")]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"alone", "not two tab-separated texts"),
        (b"a\tb\tc", "not two tab-separated texts"),
        (b"\tb", "empty side"),
        (b"a\t ", "empty side"),
        (b"", "empty side"),
        (b"dog\tH\xfcndin", "not UTF-8"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, line, kind):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"dog\tHund\n" + line + b"\ncat\tKatze\n")
    with pytest.raises(ValueError) as error:
        read_pairs(path)
    assert str(error.value) == f"1 line (1 {kind}) cannot be used:\n{path}:2: {kind}"


def test_references_are_grouped_by_source():
    assert group_references([("a", "x"), ("b", "y"), ("a", "z")]) == {"a": ["x", "z"], "b": ["y"]}


def test_padding_is_on_the_right():
    assert pad([[5, 6, 7], [8]], 0).tolist() == [[5, 6, 7], [8, 0, 0]]


def test_no_batch_exceeds_the_padded_token_limit(rng):
    lengths = rng.integers(1, 30, size=200).tolist()
    batches = list(shuffled_batches(lengths, 64, rng))
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    assert all(max(lengths[i] for i in batch) * len(batch) <= 64 for batch in batches)


def test_a_sequence_over_the_limit_is_a_batch_of_its_own():
    assert group_by_tokens([3, 90, 3], 10, np.arange(3)) == [[0], [1], [2]]


def test_teacher_forcing_input_is_the_output_shifted_by_the_begin_token(tmp_path, rng):
    tokenizer = train_translation_tokenizer(TEXTS * 3, 120)
    for batch in pair_dataset(tmp_path, PAIRS, tokenizer).batches(30, rng):
        assert torch.equal(batch.target_in[:, 1:], batch.target_out[:, :-1])
        assert set(batch.target_in[:, 0].tolist()) == {tokenizer.token_to_id("<s>")}


def test_documents_are_separated_by_empty_lines(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\none\ntwo\n\n\nthree\n")
    assert list(read_documents(path, BadLines())) == [["one", "two"], ["three"]]


def test_paragraphs_are_joined_up_to_the_limit():
    assert join_paragraphs(["ab", "cd", "efgh", "much too long"], 5) == [
        "ab cd",
        "efgh",
        "much too long",
    ]


def test_drawn_texts_reach_the_limit_without_repeats(rng):
    texts = [str(i) * 10 for i in range(10)]
    drawn = draw_texts(texts, 35, rng)
    assert len(drawn) == len(set(drawn)) == 4
    assert sorted(draw_texts(texts, 10_000, rng)) == texts


def test_long_texts_are_encoded_in_pieces_that_hold_everything(tokenizer):
    text = "The dog barks. The cat sleeps."
    pieces = encode_in_pieces([text, "We go."], tokenizer, 6)
    assert all(len(piece) <= 6 for piece in pieces)
    assert {(int(p[0]), int(p[-1])) for p in pieces} == {(2, 3)}
    inner = [int(token) for piece in pieces for token in piece[1:-1]]
    whole = [token for t in (text, "We go.") for token in tokenizer.encode(t).ids[1:-1]]
    assert inner == whole


def test_a_text_encoded_whole_loses_only_what_is_over_the_limit(tokenizer):
    text = "The dog barks."
    ids = tokenizer.encode(text).ids
    assert encode_whole([text], tokenizer, len(ids))[0].tolist() == ids
    assert encode_whole([text], tokenizer, 4)[0].tolist() == [*ids[:3], ids[-1]]


def test_masked_batches_keep_the_targets_they_hide(tokenizer, rng):
    dataset = MaskedDataset(encode_whole(TEXTS, tokenizer, 64), tokenizer)
    token_ids = pad([tokenizer.encode(TEXTS[0]).ids, tokenizer.encode(TEXTS[6]).ids], 0)
    batch = dataset.mask(token_ids, rng)
    assert torch.equal(token_ids[batch.is_target], batch.targets)
    assert torch.equal(token_ids[~batch.is_target], batch.token_ids[~batch.is_target])


def test_special_tokens_are_never_targets(tokenizer, rng):
    dataset = MaskedDataset(encode_whole(TEXTS, tokenizer, 64), tokenizer, mask_ratio=0.99)
    for batch in dataset.batches(64, rng):
        assert not set(batch.targets.tolist()) & {0, 2, 3}


def test_masks_follow_the_published_proportions(tokenizer, rng):
    token_ids = torch.full((500, 100), tokenizer.token_to_id("T"))
    batch = MaskedDataset([], tokenizer).mask(token_ids, rng)
    seen = batch.token_ids[batch.is_target]
    assert batch.is_target.float().mean() == pytest.approx(0.15, abs=0.01)
    assert (seen == 4).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (seen == token_ids[0, 0]).float().mean() == pytest.approx(0.1, abs=0.02)


def test_special_tokens_never_replace_a_token(tokenizer, rng):
    token_ids = torch.full((500, 100), tokenizer.token_to_id("T"))
    batch = MaskedDataset([], tokenizer, mask_ratio=1.0).mask(token_ids, rng)
    seen = set(batch.token_ids[batch.is_target].tolist())
    assert seen == set(range(tokenizer.get_vocab_size())) - {0, 1, 2, 3}


def test_the_batches_of_an_epoch_are_counted_without_making_them(tokenizer, tmp_path, rng):
    pairs = pair_dataset(tmp_path, PAIRS, train_translation_tokenizer(TEXTS * 3, 120))
    masked = MaskedDataset(encode_whole(TEXTS, tokenizer, 64), tokenizer)
    similar = SimilarPairs(PAIRS, tokenizer, 64)
    for _ in range(5):
        assert pairs.num_batches(12) == len(list(pairs.batches(12, rng))) > 1
        assert masked.num_batches(12) == len(list(masked.batches(12, rng))) > 1
    assert similar.num_batches(1) == len(list(similar.batches(1, rng))) == len(PAIRS)
    assert SimilarPairs([], tokenizer, 64).num_batches(1) == 0


def test_even_the_shortest_batch_has_a_target(tokenizer, rng):
    batch = MaskedDataset([], tokenizer, mask_ratio=0.0).mask(torch.tensor([[2, 9, 3]]), rng)
    assert batch.targets.tolist() == [9]


def test_masks_are_new_in_every_epoch_and_the_same_for_the_same_seed(tokenizer):
    dataset = MaskedDataset(encode_whole(TEXTS, tokenizer, 64), tokenizer)
    first, again, other = (
        [b.is_target for b in dataset.batches(10_000, np.random.default_rng(seed))]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_paraphrases_share_a_translation_and_are_limited():
    pairs = [("a", "x"), ("b", "x"), ("c", "x"), ("a", "y"), ("a", "y")]
    assert paraphrase_pairs(pairs, 1) == [("x", "y"), ("a", "b")]
    assert paraphrase_pairs(pairs, 2) == [("x", "y"), ("a", "b"), ("b", "c")]


def test_no_sentence_is_in_a_batch_of_pairs_twice(tokenizer, rng):
    for first, second, _ in SimilarPairs(PAIRS, tokenizer, 64).batches(4, rng):
        rows = [tuple(row) for side in (first, second) for row in side.tolist()]
        assert len(set(rows)) == len(rows)


def test_batches_of_pairs_keep_partners_together(tokenizer, rng):
    partners = {
        (tokenizer.decode(a), tokenizer.decode(b))
        for first, second, _ in SimilarPairs(PAIRS, tokenizer, 64).batches(1, rng)
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
    }
    assert len(partners) == len(PAIRS)
    assert ("We go.", "Wir gehen.") in partners
