"""Checkpoints of Qwen3 and Gemma 3: their layers, special tokens and defaults, and refusals."""

import pytest
import torch
from attendant.v1.architecture_pb2 import NORM_POSITION_PRE, NORM_POSITION_SANDWICH
from attendant.v1.embedding_pb2 import POOLING_LAST, POOLING_MEAN
from attendant_export.__main__ import main
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.models.special_tokens import EncoderTokens
from attendant_manifest.part_rules import MAX_TOKENS
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, processors

from tests.support.checkpoints import NUM_POSITIONS, WIDTH, change_json
from tests.support.decoder_checkpoints import END, QWEN3_PROMPT, write_gemma3, write_qwen3
from tests.support.imports import import_, read_encoder

pytestmark = pytest.mark.usefixtures("quiet_threads")

GLOBAL, LOCAL = "full_attention", "sliding_attention"


@pytest.fixture
def qwen3(tmp_path):
    return write_qwen3(tmp_path / "qwen3")


@pytest.fixture
def gemma3(tmp_path):
    return write_gemma3(tmp_path / "gemma3")


def read(source, without_head=False, **fields):
    change_json(source / "config.json", **fields)
    return read_encoder(source, without_head)


def attentions_of(encoder):
    """The attention of each layer."""
    return [
        group.self_attention
        for group in encoder.model.architecture.encoder.groups
        for _ in range(group.num_layers)
    ]


def windows_of(encoder):
    return [attention.window for attention in attentions_of(encoder)]


def without_modules(source):
    (source / "modules.json").unlink()
    return source


def change_tokenizer(source, processor):
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.post_processor = processor
    tokenizer.save(str(source / "tokenizer.json"))
    return source


def test_qwen3_has_causal_attention_with_grouped_heads_and_their_norms(qwen3):
    encoder = read(qwen3)
    network = encoder.model.architecture
    (group,) = network.encoder.groups
    attention = group.self_attention
    assert (attention.num_heads, attention.num_key_value_heads, attention.head_dim) == (4, 2, 16)
    assert (attention.is_causal, attention.window, attention.has_bias) == (True, 0, False)
    assert attention.rotary_positions.theta == 1e6
    assert attention.query_key_norm.epsilon == 1e-6
    assert (group.feed_forward.is_gated, network.encoder.norm_position) == (True, NORM_POSITION_PRE)
    assert not network.HasField("head")


def test_the_end_of_texts_of_qwen3_is_no_padding(qwen3):
    encoder = read(qwen3).model
    assert encoder.tokens == EncoderTokens(pad_id=0, cls_id=None, sep_id=0, mask_id=None)
    batch = torch.tensor([[5, 6, 0, 0, 0], [5, 6, 7, 8, 0]])
    lengths = encoder.real_tokens(batch).sum(dim=1)
    assert lengths.tolist() == [3, 5]
    with torch.inference_mode():
        together, alone = encoder.pooled(batch, "last"), encoder.pooled(batch[:1, :3], "last")
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)


def test_embedding_gemma_sees_both_sides_of_a_window(gemma3):
    encoder = read(gemma3)
    network = encoder.model.architecture
    local, whole = attentions_of(encoder)
    assert (local.window, local.rotary_positions.theta, local.is_causal) == (4, 1e4, False)
    assert (whole.window, whole.rotary_positions.theta, whole.is_causal) == (0, 1e6, False)
    assert local.scale == whole.scale == 24**-0.5
    assert network.source_embeddings.scale == 32**0.5
    assert network.encoder.norm_position == NORM_POSITION_SANDWICH
    assert encoder.model.tokens == EncoderTokens(pad_id=0, cls_id=2, sep_id=1, mask_id=None)


def test_factors_of_gemma_norms_are_one_more_than_in_the_checkpoint(gemma3):
    stored = load_file(gemma3 / "model.safetensors")
    parameters = read(gemma3).model.state_dict()
    norms = {
        "encoder_norm": "norm",
        "encoder.1.self_attention.query_norm": "layers.1.self_attn.q_norm",
        "encoder.1.self_attention_residual.output_norm": "layers.1.post_attention_layernorm",
        "encoder.1.feed_forward_residual.norm": "layers.1.pre_feedforward_layernorm",
    }
    for ours, theirs in norms.items():
        assert torch.equal(parameters[f"{ours}.weight"], stored[f"{theirs}.weight"] + 1)


def test_a_window_of_causal_attention_counts_the_token_itself(qwen3, gemma3):
    types = [GLOBAL, LOCAL]
    windowed = {"use_sliding_window": True, "sliding_window": 5}
    assert windows_of(read(qwen3, layer_types=types, **windowed)) == [0, 4]
    assert windows_of(read(qwen3, layer_types=None, max_window_layers=1)) == [0, 4]
    assert windows_of(read(qwen3, max_window_layers=0)) == [4, 4]
    causal = read(gemma3, use_bidirectional_attention=False, layer_types=types)
    assert windows_of(causal) == [0, 7]
    assert all(attention.is_causal for attention in attentions_of(causal))
    assert windows_of(read(gemma3, layer_types=None, sliding_window_pattern=1)) == [0, 0]


def test_newer_configurations_state_the_rotary_positions_in_one_field(qwen3, gemma3):
    default = {"rope_type": "default"}
    encoder = read(qwen3, rope_theta=None, rope_parameters={"rope_theta": 500.0, **default})
    assert {each.rotary_positions.theta for each in attentions_of(encoder)} == {500.0}
    parameters = {GLOBAL: {"rope_theta": 7.0, **default}, LOCAL: {"rope_theta": 3.0, **default}}
    encoder = read(gemma3, rope_parameters=parameters)
    assert [each.rotary_positions.theta for each in attentions_of(encoder)] == [3.0, 7.0]


def test_the_longest_text_is_that_of_the_settings_or_of_the_positions(qwen3, gemma3):
    assert read(qwen3).max_tokens == 64
    assert read(without_modules(qwen3), without_head=True).max_tokens == NUM_POSITIONS
    change_json(gemma3 / "tokenizer_config.json", model_max_length=10**30)
    longest = read(without_modules(gemma3), max_position_embeddings=10 * MAX_TOKENS).max_tokens
    assert longest == MAX_TOKENS


def test_a_language_model_without_its_head_pools_its_last_token(qwen3, gemma3):
    assert read(without_modules(qwen3), without_head=True).defaults.pooling == POOLING_LAST
    assert read(qwen3, architectures=["Qwen3Model"]).defaults.pooling == POOLING_MEAN
    assert read(without_modules(gemma3), architectures=None).defaults.pooling == POOLING_MEAN


def test_weights_of_a_language_model_have_another_prefix_and_a_head(qwen3):
    path = qwen3 / "model.safetensors"
    weights = {f"model.{name}": tensor for name, tensor in load_file(path).items()}
    head = {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    save_file(weights | head, path)
    assert not read(qwen3).model.architecture.HasField("head")


def test_texts_of_a_tokenizer_without_an_end_have_no_special_tokens(qwen3):
    encoder = read(change_tokenizer(qwen3, processors.ByteLevel(trim_offsets=False)))
    assert encoder.model.tokens == EncoderTokens(pad_id=0, cls_id=None, sep_id=None, mask_id=None)


def test_all_tokens_of_a_prompt_count_if_the_tokenizer_adds_no_end(qwen3):
    change_json(qwen3 / "1_Pooling" / "config.json", include_prompt=False)
    settings = qwen3 / "config_sentence_transformers.json"
    change_json(settings, default_prompt_name="query")
    with_end = read(qwen3).defaults.num_prompt_tokens
    without_end = read(change_tokenizer(qwen3, processors.ByteLevel())).defaults.num_prompt_tokens
    tokenizer = Tokenizer.from_file(str(qwen3 / "tokenizer.json"))
    assert with_end == without_end == len(tokenizer.encode(QWEN3_PROMPT).ids)


def test_several_special_tokens_after_a_text_are_refused(qwen3):
    twice = processors.TemplateProcessing(single=f"$A {END} {END}", special_tokens=[(END, 0)])
    message = "puts 0 special tokens before a text and 2 after it; supported: at most one each"
    with pytest.raises(CheckpointError, match=message):
        read(change_tokenizer(qwen3, twice))


def test_a_tokenizer_that_reads_no_letters_is_refused(qwen3):
    Tokenizer(models.BPE({END: 0, "h": 1}, [])).save(str(qwen3 / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"tokenizer.json makes no token of the text a$"):
        read(qwen3)


def test_the_head_of_a_reranker_is_named_and_can_be_left_out(qwen3, tmp_path, refusal):
    path = qwen3 / "model.safetensors"
    weights = {f"model.{name}": tensor for name, tensor in load_file(path).items()}
    save_file(weights | {"score.weight": torch.ones(1, WIDTH)}, path)
    change_json(qwen3 / "config.json", architectures=["Qwen3ForSequenceClassification"])
    assert "architectures is Qwen3ForSequenceClassification, whose head is not" in refusal(qwen3)
    import_(qwen3, tmp_path / "bundles", "--without-head")


def test_a_reranker_that_answers_yes_or_no_is_refused_by_name(qwen3, refusal):
    message = refusal(without_modules(qwen3))
    assert "architectures is Qwen3ForCausalLM, and there is no modules.json: language" in message
    assert "such as Qwen3-Reranker, are not supported; supported: embedding models" in message


def test_a_checkpoint_without_a_padding_token_is_refused(qwen3):
    change_json(qwen3 / "tokenizer_config.json", pad_token=None)
    with pytest.raises(CheckpointError, match=r"neither .* nor .* has a pad_token"):
        read(qwen3)


def test_inspect_describes_the_parts_and_the_prompts(gemma3, tmp_path, capsys):
    main(["inspect", str(import_(gemma3, tmp_path / "bundles"))])
    printed = capsys.readouterr().out
    for part in (
        "num_key_value_heads 2, query_key_norm (epsilon 1e-06)",
        "norm_position sandwich",
        "text vectors: ",
        "dense_layers (d_output 96), dense_layers (d_output 32)",
        "prompts (document 'title: none | text: '), prompts (query 'task: search result | query:",
    ):
        assert part in printed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_h"),
        ({"num_key_value_heads": None}, "num_key_value_heads is None, want an integer from 1"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish', which is not supported"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling is {'factor': 2.0}, which is not supp"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
            "rope_parameters.rope_type is 'yarn', which is not supported; supported: 'default'",
        ),
        (
            {"rope_parameters": {"factor": 2.0}},
            "rope_parameters has factor, which is not supported",
        ),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True, which is"),
        ({"is_causal": False}, "is_causal is False, which is not supported; supported: True"),
        ({"layer_types": [GLOBAL, LOCAL]}, "use_sliding_window is False, but layer_types has slid"),
        ({"layer_types": [GLOBAL, "linear"]}, "layer_types is .*, want 2 of full_attention, slid"),
        (
            {"use_sliding_window": True, "max_window_layers": 1},
            "sliding_window is None, want an integer from 2",
        ),
        ({"attention_bias": True}, "layers.0.self_attn.q_proj.bias is missing"),
        ({"num_attention_heads": 8}, r"layers.0.self_attn.q_proj.weight is \(64, 32\), not \(128,"),
        ({"model_type": "qwen3_moe"}, "model_type is 'qwen3_moe', which is not supported"),
    ],
)
def test_configurations_of_qwen3_that_are_not_supported_are_named(fields, message, qwen3):
    with pytest.raises(CheckpointError, match=message):
        read(qwen3, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"attn_logit_softcapping": 50.0},
            "attn_logit_softcapping is 50.0, which is not supported",
        ),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0, want a positive number"),
        ({"sliding_window": 1}, "sliding_window is 1, want an integer from 2"),
        ({"use_bidirectional_attention": "yes"}, "use_bidirectional_attention is 'yes'"),
        ({"rope_scaling": {"factor": 8.0}}, "rope_scaling is {'factor': 8.0}, which is not supp"),
        (
            {"rope_parameters": {GLOBAL: {"rope_type": "linear", "factor": 8.0}}},
            "rope_parameters.full_attention.rope_type is 'linear', which is not supported",
        ),
        ({"model_type": "gemma3"}, "model_type is 'gemma3', which is not supported"),
    ],
)
def test_configurations_of_gemma_that_are_not_supported_are_named(fields, message, gemma3):
    with pytest.raises(CheckpointError, match=message):
        read(gemma3, **fields)


@pytest.mark.parametrize("write", [write_qwen3, write_gemma3])
def test_a_head_for_classification_is_refused_but_can_be_left_out(write, tmp_path, refusal):
    name = "AnyForSequenceClassification"
    source = write(tmp_path / "source", architectures=[name])
    tensors = load_file(source / "model.safetensors")
    save_file(tensors | {"score.weight": torch.zeros(1, 32)}, source / "model.safetensors")
    assert f"architectures is {name}, whose head is not supported" in refusal(source)
    assert import_(source, tmp_path / "bundles", "--without-head")
