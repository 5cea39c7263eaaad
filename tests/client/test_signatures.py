"""The keyword arguments of the methods: what `help` shows is what one can pass."""

import inspect
from typing import get_overloads

import pytest
from attendant.v1 import translation_pb2
from attendant_client import AsyncClient, Client

METHODS = ["translate", "stream_translate", "score", "tokenize", "embed", "embed_tokens"]
METHODS += ["fill_mask", "classify", "embed_sparse", "bulk_translate", "bulk_embed"]


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_is_a_type_error_that_names_it(client, script, method):
    with pytest.raises(TypeError, match=rf"{method}\(\) got an .* keyword argument 'beams'"):
        getattr(client, method)("a", beams=4)
    assert not script.calls


@pytest.mark.parametrize("method", METHODS)
def test_the_signature_of_a_method_names_every_option(method):
    for cls in (Client, AsyncClient):
        form = getattr(cls, method)
        parameters = inspect.signature(form).parameters
        assert inspect.Parameter.VAR_KEYWORD not in {each.kind for each in parameters.values()}
        assert "request_id" in parameters
        for overload in get_overloads(form):
            assert list(inspect.signature(overload).parameters) == list(parameters)


def test_a_stream_has_the_options_of_a_translation_and_those_are_all_of_the_contract():
    translate, stream = (
        set(inspect.signature(form).parameters) - {"self", "texts", "text"}
        for form in (Client.translate, Client.stream_translate)
    )
    assert translate - stream == {"markup"}  # whose places are known at the end only
    assert stream <= translate
    assert set(translation_pb2.TranslateOptions.DESCRIPTOR.fields_by_name) <= translate


@pytest.mark.parametrize("method", ["translate", "embed"])
def test_a_bulk_call_has_the_options_of_the_call_without_bulk(method):
    for cls in (Client, AsyncClient):
        single, bulk = (
            set(inspect.signature(getattr(cls, name)).parameters)
            for name in (method, f"bulk_{method}")
        )
        # A prefix has a value for each text.
        assert single - bulk <= {"target_prefix", "target_prefix_bias"}
        assert bulk <= single
