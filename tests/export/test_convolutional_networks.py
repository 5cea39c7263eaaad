"""Random convolutional networks give equal results in PyTorch and in graphs; bad ones are refused."""

import torch
from hypothesis import given

from tests.export.test_architectures import SEEDS, SOURCES, TARGETS, model_of
from tests.export.test_recurrent_networks import (
    SOURCE,
    decoded_token_by_token,
    parity_of,
    restored_from_graphs,
)
from tests.support import architectures as some
from tests.support.convolutional_networks import convolutional_translators


@some.fewer_random_parts
@given(convolutional_translators(), SEEDS)
def test_graphs_translate_as_the_model_does(architecture, seed):
    parity_of(architecture, seed, "fp32")


@some.random_parts
@given(convolutional_translators(), SEEDS)
def test_decoding_token_by_token_equals_decoding_all_at_once(architecture, seed):
    model = model_of(architecture, seed)
    with torch.inference_mode():
        whole, steps = model(SOURCE, TARGETS), decoded_token_by_token(model)
    torch.testing.assert_close(steps, whole, atol=2e-5, rtol=2e-5)


@some.random_parts
@given(convolutional_translators(), SEEDS)
def test_padding_changes_nothing(architecture, seed):
    model = model_of(architecture, seed)
    padded = torch.tensor([[*SOURCES[0], 0, 0, 0, 0], SOURCES[1]])
    with torch.inference_mode():
        alone, together = model(SOURCE[:1], TARGETS[:1]), model(padded, TARGETS)
    torch.testing.assert_close(together[:1], alone, atol=2e-5, rtol=2e-5)


@some.random_parts
@given(convolutional_translators(), SEEDS)
def test_a_model_is_restored_from_the_parameters_of_its_graphs(architecture, seed):
    model, restored = restored_from_graphs(architecture, seed)
    with torch.inference_mode():
        torch.testing.assert_close(
            restored(SOURCE, TARGETS), model(SOURCE, TARGETS), atol=1e-4, rtol=1e-4
        )
