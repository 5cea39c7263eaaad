import gzip

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.plain_trainer import PAD, PlainTransformer, Sizes, batches, train_plainly
from bench.training import flops_per_pair, sample_pairs

SMALL = Sizes(50, 16, 2, 32, num_encoder_layers=2, num_decoder_layers=1)
PAIRS = [([5] * n, [6] * (n + n % 3)) for n in range(1, 9)]


def test_the_products_with_weights_are_those_that_pytorch_counts():
    model = PlainTransformer(SMALL, dropout=0.0)
    source, target = torch.full((1, 4), 5), torch.full((1, 6), 6)

    with FlopCounterMode(display=False) as counter:
        model(source, target).sum().backward()

    products = [counter.get_flop_counts()["Global"].get(op, 0) for op in weight_products()]
    attention = 3 * 2 * (2 * 2 * 4 * 4 * 16 + (6 * 7 + 2 * 6 * 4) * 16)
    assert flops_per_pair(SMALL, 4, 6) - attention == pytest.approx(sum(products), rel=0.01)


def weight_products():
    return [torch.ops.aten.mm, torch.ops.aten.addmm]


def test_plain_batches_hold_every_pair_once_within_the_limit():
    found = list(batches(PAIRS, 20))

    assert sum(len(source) for source, _ in found) == len(PAIRS)
    for source, target in found:
        assert len(source) * max(source.shape[1], target.shape[1] - 1) <= 20
    assert sum(int((source != PAD).sum()) for source, _ in found) == sum(len(s) for s, _ in PAIRS)


def test_the_plain_loop_trains():
    assert train_plainly(SMALL, PAIRS, 20) > 0


def test_pairs_are_drawn_alike_each_time(tmp_path):
    with gzip.open(tmp_path / "t.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("a\tb\nc\td\ne\tf\n")

    drawn = sample_pairs(tmp_path / "t.tsv.gz", 2)

    assert drawn == sample_pairs(tmp_path / "t.tsv.gz", 2)
    assert len(set(drawn) & {"a\tb\n", "c\td\n", "e\tf\n"}) == 2
