import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from bench.rivals.plain_training import PAD, PlainTransformer, batches, read_pairs, train


@pytest.fixture
def pairs(tmp_path):
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "a", "b", "c"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    (tmp_path / "train.tsv").write_text("a b\tc\na\tb c a\nc c c\ta\n", encoding="utf-8")
    return read_pairs(tmp_path / "train.tsv", tokenizer)


def test_each_pair_is_in_a_batch_with_its_begin_and_end(pairs):
    [(source, target)] = batches(pairs)
    rows = {(tuple(s.tolist()), tuple(t.tolist())) for s, t in zip(source, target, strict=True)}
    assert rows == {
        ((1, 4, 5, 2, 0), (1, 6, 2, 0, 0)),
        ((1, 4, 2, 0, 0), (1, 5, 6, 4, 2)),
        ((1, 6, 6, 6, 2), (1, 4, 2, 0, 0)),
    }


def test_padding_and_later_tokens_change_nothing(pairs):
    torch.manual_seed(1)
    model = PlainTransformer(7).eval()
    [(source, target)] = batches(pairs)
    alone, together = model(source[:1, :], target[:1, :2]), model(source, target)
    assert torch.allclose(alone[0], together[0, :2], atol=1e-5)
    padded = torch.nn.functional.pad(source[:1], (0, 3), value=PAD)
    assert torch.allclose(model(padded, target[:1, :2]), alone, atol=1e-5)


def test_an_epoch_takes_some_time(pairs):
    assert train(pairs, 7) > 0
