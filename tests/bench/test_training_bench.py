import gzip

import pytest
import torch
from attendant_export.models.transformer import Transformer, TransformerConfig
from torch.utils.flop_counter import FlopCounterMode

from bench.training import flops_per_pair, sample_pairs

SMALL = TransformerConfig(50, 16, 2, 32, num_encoder_layers=2, num_decoder_layers=1, dropout=0.0)


def test_the_products_with_weights_are_those_that_pytorch_counts():
    model = Transformer(SMALL)
    source, target = torch.full((1, 4), 5), torch.full((1, 6), 6)

    with FlopCounterMode(display=False) as counter:
        model.logits(model(source, target)).sum().backward()

    products = [counter.get_flop_counts()["Global"].get(op, 0) for op in weight_products()]
    attention = 3 * 2 * (2 * 2 * 4 * 4 * 16 + (6 * 7 + 2 * 6 * 4) * 16)
    assert flops_per_pair(SMALL, 4, 6) - attention == pytest.approx(sum(products), rel=0.01)


def weight_products():
    return [torch.ops.aten.mm, torch.ops.aten.addmm]


def test_pairs_are_drawn_alike_each_time(tmp_path):
    with gzip.open(tmp_path / "t.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("a\tb\nc\td\ne\tf\n")

    drawn = sample_pairs(tmp_path / "t.tsv.gz", 2)

    assert drawn == sample_pairs(tmp_path / "t.tsv.gz", 2)
    assert len(set(drawn) & {"a\tb\n", "c\td\n", "e\tf\n"}) == 2
