import pytest
import torch
from attendant_export.models.encoder import Encoder
from attendant_export.models.shapes import bert
from attendant_export.models.text_vectors import pool


def small_bert(**changes) -> Encoder:
    torch.manual_seed(0)
    sizes = {
        "d_model": 16,
        "num_heads": 2,
        "d_feed_forward": 32,
        "num_layers": 2,
        "max_positions": 12,
    }
    return Encoder(bert(**({"vocab_size": 50} | sizes | changes))).eval()


@pytest.fixture(params=[False, True], ids=["post-norm", "pre-norm"])
def model(request) -> Encoder:
    return small_bert(norm_first=request.param)


def test_hidden_states_are_the_embeddings_and_every_layer(model):
    token_ids = torch.tensor([[2, 7, 8, 3]])
    states = model.hidden_states(token_ids)
    assert [tuple(state.shape) for state in states] == [(1, 4, 16)] * 3
    assert torch.equal(states[0], model.embed(token_ids))
    assert torch.equal(states[-1], model(token_ids))


def test_the_work_can_be_limited_to_the_first_layers(model):
    token_ids = torch.tensor([[2, 7, 8, 3]])
    embeddings = model.encoder_norm(model.embed(token_ids))
    assert torch.equal(model.hidden_states(token_ids, num_layers=0)[-1], embeddings)
    assert len(model.hidden_states(token_ids, num_layers=1)) == 2
    assert torch.equal(model.pooled(token_ids, "cls", num_layers=0), embeddings[:, 0])


def test_padding_changes_nothing(model):
    alone = model(torch.tensor([[2, 7, 3]]))
    padded = model(torch.tensor([[2, 7, 3, 0, 0], [2, 9, 8, 7, 3]]))
    torch.testing.assert_close(padded[:1, :3], alone)


def test_every_token_sees_the_tokens_after_it(model):
    one, other = model(torch.tensor([[2, 7, 8, 3], [2, 7, 9, 3]]))
    assert not torch.allclose(one[0], other[0])


def test_segments_default_to_the_first(model):
    token_ids = torch.tensor([[2, 7, 3, 8, 3]])
    torch.testing.assert_close(model(token_ids), model(token_ids, torch.zeros_like(token_ids)))
    assert not torch.allclose(model(token_ids), model(token_ids, torch.ones_like(token_ids)))


def test_names_of_parameters_are_those_of_earlier_checkpoints(model):
    names = {name for name in model.state_dict() if not name.startswith("encoder")}

    assert names == {
        *("embedding.weight", "position_embedding.weight", "segment_embedding.weight"),
        *("embedding_norm.weight", "embedding_norm.bias", "mask_head.bias"),
        *("mask_head.dense.weight", "mask_head.dense.bias"),
        *("mask_head.norm.weight", "mask_head.norm.bias"),
    }


def test_more_tokens_than_positions_are_an_error(model):
    with pytest.raises(ValueError, match="13 tokens exceed the 12 positions"):
        model(torch.full((1, 13), 7))


def test_the_output_projection_is_the_token_embedding(model):
    names = [name for name, weight in model.named_parameters() if weight.shape == (50, 16)]
    assert names == ["embedding.weight"]
    assert model.mask_logits(torch.zeros(3, 16)).shape == (3, 50)


def test_mask_logits_of_rows_equal_those_of_the_whole(model):
    hidden = model(torch.tensor([[2, 7, 4, 3]]))
    whole = model.mask_logits(hidden)
    torch.testing.assert_close(model.mask_logits(hidden[:, 2]), whole[:, 2])


def test_normalized_layers_keep_the_stream_at_unit_scale(model):
    torch.testing.assert_close(
        model(torch.tensor([[2, 7, 3]])).var(dim=-1, unbiased=False),
        torch.ones(1, 3),
        atol=1e-2,
        rtol=0,
    )


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [2.0, -2.0]), ("cls", [1.0, -3.0]), ("max", [3.0, -1.0])]
)
def test_pooling_ignores_padding(pooling, expected):
    hidden = torch.tensor([[[1.0, -3.0], [3.0, -1.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    assert pool(hidden, mask, pooling).tolist() == [expected]


def test_pooled_is_the_pool_of_the_last_layer(model):
    token_ids = torch.tensor([[2, 7, 8, 3], [2, 7, 3, 0]])
    expected = pool(model(token_ids), token_ids != 0, "max")
    assert torch.equal(model.pooled(token_ids, "max"), expected)
