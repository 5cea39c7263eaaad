import gzip

import pytest
import torch
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.shapes import transformer
from attendant_manifest.sizes import translation_sizes
from torch.utils.flop_counter import FlopCounterMode

from bench.training import flops_per_pair, sample_pairs

SMALL = transformer(50, 16, 2, 32, num_encoder_layers=2, num_decoder_layers=1)


def test_the_products_with_weights_are_those_that_pytorch_counts():
    model = EncoderDecoder(SMALL)
    source, target = torch.full((1, 4), 5), torch.full((1, 6), 6)

    with FlopCounterMode(display=False) as counter:
        model.logits(model(source, target)).sum().backward()

    products = [counter.get_flop_counts()["Global"].get(op, 0) for op in weight_products()]
    attention = 3 * 2 * (2 * 2 * 4 * 4 * 16 + (6 * 7 + 2 * 6 * 4) * 16)
    assert flops_per_pair(translation_sizes(SMALL), 4, 6) - attention == pytest.approx(
        sum(products), rel=0.01
    )


def weight_products():
    return [torch.ops.aten.mm, torch.ops.aten.addmm]


def test_pairs_are_drawn_alike_each_time(tmp_path):
    with gzip.open(tmp_path / "t.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("a\tb\nc\td\ne\tf\n")

    drawn = sample_pairs(tmp_path / "t.tsv.gz", 2)

    assert drawn == sample_pairs(tmp_path / "t.tsv.gz", 2)
    assert len(set(drawn) & {"a\tb\n", "c\td\n", "e\tf\n"}) == 2
