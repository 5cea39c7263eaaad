import math

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    POSITION_KIND_SINUSOIDAL_HALVED,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
    Positions,
)
from attendant_export.models.embeddings import sinusoids
from attendant_export.models.shapes import transformer

from tests.support.graphs import tiny_transformer

SOURCE = torch.tensor([[5, 9, 33, 7, 2], [4, 2, 0, 0, 0]])
TARGET = torch.tensor([[1, 4, 8, 15, 16], [1, 23, 42, 11, 12]])


@pytest.fixture(params=[True, False], ids=["pre-norm", "post-norm"])
def model(request):
    return tiny_transformer(norm_first=request.param)


@torch.inference_mode()
def test_no_position_sees_later_tokens(model):
    changed = TARGET.clone()
    changed[:, 3:] = 20

    before, after = model(SOURCE, TARGET), model(SOURCE, changed)

    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@torch.inference_mode()
def test_padding_of_a_source_is_invisible(model):
    alone = model(SOURCE[1:, :2], TARGET[1:])

    torch.testing.assert_close(model(SOURCE, TARGET)[1:], alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_decoding_token_by_token_with_a_cache_equals_decoding_all_at_once(model):
    _, _, memory, mask = model.start(SOURCE)
    whole, _ = model.decode(TARGET, memory, mask)

    past, steps = None, []
    for i in range(TARGET.shape[1]):
        hidden, past = model.decode(TARGET[:, i : i + 1], memory, mask, past)
        steps.append(hidden)

    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_several_tokens_can_follow_a_cache_at_once(model):
    _, _, memory, mask = model.start(SOURCE)
    whole, _ = model.decode(TARGET, memory, mask)

    _, past = model.decode(TARGET[:, :2], memory, mask)
    rest, _ = model.decode(TARGET[:, 2:], memory, mask, past)

    torch.testing.assert_close(rest, whole[:, 2:], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_texts_may_be_longer_than_the_precomputed_positions(model):
    length = len(model.position_embedding.table) + 1
    _, _, memory, mask = model.start(SOURCE[:1])

    hidden, _ = model.decode(torch.ones(1, length, dtype=torch.long), memory, mask)

    assert hidden.shape == (1, length, model.architecture.d_model)


def test_names_of_parameters_are_those_of_earlier_checkpoints():
    layer = {
        *("self_attention.query_key_value", "self_attention.output"),
        *("self_attention_residual.norm", "feed_forward.0", "feed_forward.2"),
        "feed_forward_residual.norm",
    }
    cross = {"cross_attention.query_key_value", "cross_attention.output"}
    cross |= {"cross_attention_residual.norm"}
    modules = {f"encoder.{i}.{name}" for i in range(2) for name in layer}
    modules |= {f"decoder.{i}.{name}" for i in range(2) for name in layer | cross}
    modules |= {"encoder_norm", "decoder_norm"}
    expected = {f"{name}.{kind}" for name in modules for kind in ("weight", "bias")}

    names = tiny_transformer(norm_first=True).state_dict().keys()

    assert names == expected | {"embedding.weight"}


def test_only_pre_norm_has_a_norm_at_the_top_of_its_stacks():
    names = {name for name, _ in tiny_transformer(norm_first=True).named_parameters()}
    post_norm_names = {name for name, _ in tiny_transformer(norm_first=False).named_parameters()}

    assert {name.split(".")[0] for name in names - post_norm_names} == {
        "encoder_norm",
        "decoder_norm",
    }


def test_source_target_and_output_share_one_embedding(model):
    sizes = [p.shape for p in model.parameters() if p.shape[0] == 50]

    assert sizes == [(50, 32)]


def test_heads_must_divide_the_width_evenly():
    with pytest.raises(ValueError, match="multiple of"):
        transformer(vocab_size=10, d_model=30, num_heads=4)


def test_positions_are_distinct_and_bounded():
    positions = sinusoids(Positions(kind=POSITION_KIND_SINUSOIDAL_HALVED), 512, 32)

    assert positions.abs().max() <= 1
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 0.1


def test_positions_of_tensor2tensor_reach_the_rate_of_1_in_10000():
    positions = sinusoids(Positions(kind=POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR), 50, 8)

    for position in (0, 1, 49):
        angles = [position * 10_000 ** (-i / 3) for i in range(4)]
        expected = [*map(math.sin, angles), *map(math.cos, angles)]
        torch.testing.assert_close(positions[position], torch.tensor(expected))
