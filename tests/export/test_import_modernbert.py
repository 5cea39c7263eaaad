"""Checkpoints of ModernBERT: their layers, and what is refused."""

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU_TANH,
    NORM_KIND_LAYER_WITHOUT_BIAS,
    NORM_KIND_UNSPECIFIED,
)
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import CheckpointError
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import NUM_POSITIONS, WIDTH, change_json, write_checkpoint
from tests.support.imports import import_, read_encoder

pytestmark = pytest.mark.usefixtures("quiet_threads")

GLOBAL, LOCAL = "full_attention", "sliding_attention"


@pytest.fixture
def source(tmp_path):
    return write_checkpoint(tmp_path / "source", "modernbert")


def read(source, **fields):
    change_json(source / "config.json", **fields)
    return read_encoder(source)


def layers_of(encoder):
    """The attention of each layer: theta and window."""
    return [
        (group.self_attention.rotary_positions.theta, group.self_attention.window)
        for group in encoder.model.architecture.encoder.groups
        for _ in range(group.num_layers)
    ]


def with_layers(source, count):
    """Give a checkpoint more layers."""
    path = source / "model.safetensors"
    weights = load_file(path)
    for layer in range(2, count):
        for name in [name for name in weights if name.startswith("layers.1.")]:
            weights[name.replace("layers.1.", f"layers.{layer}.")] = weights[name].clone()
    save_file(weights, path)
    change_json(source / "config.json", num_hidden_layers=count)
    return source


def test_every_third_layer_attends_to_all_tokens(source):
    encoder = read(with_layers(source, 8), local_attention=None)
    whole, local = (160_000.0, 0), (10_000.0, 64)
    assert layers_of(encoder) == [whole, local, local, whole, local, local, whole, local]
    groups = encoder.model.architecture.encoder.groups
    assert [(group.num_layers, group.lacks_mixer_norm) for group in groups] == [
        (1, True),
        (2, False),
        (1, False),
        (2, False),
        (1, False),
        (1, False),
    ]


def test_newer_configurations_list_the_types_of_layers_and_their_rotary_positions(source):
    parameters = {
        GLOBAL: {"rope_type": "default", "rope_theta": 500.0},
        LOCAL: {"rope_type": "default", "rope_theta": 20.0},
    }
    types = [GLOBAL, GLOBAL, LOCAL]
    encoder = read(with_layers(source, 3), layer_types=types, rope_parameters=parameters)
    assert layers_of(encoder) == [(500.0, 0), (500.0, 0), (20.0, 3)]


def test_older_configurations_state_a_base_for_each_type_of_layers(source):
    encoder = read(source, global_rope_theta=300.0, local_rope_theta=30.0)
    assert layers_of(encoder) == [(300.0, 0), (30.0, 3)]


def test_the_network_has_no_biases_but_that_of_the_head(source):
    encoder = read(source, classifier_activation="gelu_pytorch_tanh")
    biases = [name for name in encoder.model.state_dict() if name.endswith("bias")]
    assert biases == ["mask_head.bias"]
    network = encoder.model.architecture
    assert network.encoder.norm_kind == NORM_KIND_LAYER_WITHOUT_BIAS
    assert network.head.transform == ACTIVATION_GELU_TANH
    assert encoder.max_tokens == NUM_POSITIONS


def test_norms_have_biases_if_the_configuration_says_so(source):
    path = source / "model.safetensors"
    weights = load_file(path)
    norms = [name for name in weights if "norm" in name]
    save_file(weights | {f"{n[:-6]}bias": torch.ones(WIDTH) for n in norms}, path)
    network = read(source, norm_bias=True).model.architecture
    assert network.encoder.norm_kind == NORM_KIND_UNSPECIFIED


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_types": ["linear", GLOBAL]}, r"layer_types is \['linear', .*, want 2 of full_att"),
        ({"layer_types": [GLOBAL]}, "layer_types is .*, want 2 of full_attention, sliding_att"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers is 0, want an integer"),
        ({"local_attention": 1}, "local_attention is 1, want an integer from 2"),
        ({"sliding_window": 7}, "sliding_window is 7, which is not supported; supported: 3"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling is {'factor': 2}, which is not supported"),
        (
            {"rope_parameters": {LOCAL: {"rope_type": "yarn"}}},
            "rope_parameters.sliding_attention.rope_type is 'yarn', which is not supported",
        ),
        ({"rope_parameters": {LOCAL: 5}}, "rope_parameters.sliding_attention is 5, want an object"),
        (
            {"rope_parameters": {"rope_theta": 80000.0, "rope_type": "yarn"}},
            "rope_parameters has rope_theta, rope_type, which is not supported",
        ),
        ({"rope_parameters": [1]}, "rope_parameters.*_attention is None, want an object"),
        ({"global_rope_theta": -1}, "global_rope_theta is -1, want a positive number"),
        ({"num_attention_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ({"hidden_activation": "mish"}, "hidden_activation is 'mish', which is not supported"),
        (
            {"tie_word_embeddings": False},
            "tie_word_embeddings is False, but the weights lack decoder.weight",
        ),
        ({"decoder_bias": False}, r"decoder.bias \(.*\) is not expected"),
        ({"attention_bias": True}, "layers.0.attn.Wqkv.bias is missing"),
    ],
)
def test_configurations_that_are_not_supported_are_named(fields, message, source):
    with pytest.raises(CheckpointError, match=message):
        read(source, **fields)


def test_a_norm_that_the_first_layer_does_not_have_is_refused(source):
    path = source / "model.safetensors"
    save_file(load_file(path) | {"layers.0.attn_norm.weight": torch.ones(WIDTH)}, path)
    with pytest.raises(CheckpointError, match=r"layers.0.attn_norm.weight \(32,\) is not expected"):
        read_encoder(source)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 7, "local_attention": 9, "attention_bias": True, "mlp_bias": True},
        {"num_hidden_layers": 3, "global_attn_every_n_layers": 1, "norm_bias": True},
        {
            "num_hidden_layers": 5,
            "global_attn_every_n_layers": 2,
            "hidden_activation": "silu",
            "classifier_activation": "relu",
            "classifier_bias": True,
            "decoder_bias": False,
            "norm_eps": 1e-3,
        },
        {
            "layer_types": [LOCAL, GLOBAL],
            "rope_parameters": {
                GLOBAL: {"rope_type": "default", "rope_theta": 50.0},
                LOCAL: {"rope_type": "default", "rope_theta": 2.0},
            },
        },
    ],
)
def test_configurations_follow_the_original(fields, source, tmp_path):
    transformers = pytest.importorskip("transformers")
    change_json(source / "config.json", **fields)
    torch.manual_seed(3)
    config = transformers.ModernBertConfig.from_pretrained(source)
    theirs = transformers.ModernBertForMaskedLM(config).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(source)

    bundle = import_(source, tmp_path / "bundles")

    assert read_manifest(bundle).parity.original.min_cosine >= 0.99999
    ours, token_ids = read_encoder(source).model, torch.arange(5, 60)[None]
    with torch.inference_mode():
        expected = theirs(token_ids).logits[0]
        assert (ours.mask_logits(ours(token_ids)[0]) - expected).abs().max() < 1e-4
