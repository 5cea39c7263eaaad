"""Search options of checkpoints become defaults of decoding in their bundles."""

import pytest
from attendant_export.importers.checkpoint import CheckpointError

from tests.support.imports import read_translator
from tests.support.marian_checkpoints import write_generation, write_marian


@pytest.mark.parametrize(("stops", "ngram_size"), [(True, 3), (False, 0), (None, 1)])
def test_early_stopping_and_the_size_of_ngrams_are_read(stops, ngram_size, tmp_path):
    source = write_marian(tmp_path / "source")
    given = {} if stops is None else {"early_stopping": stops}
    write_generation(source, no_repeat_ngram_size=ngram_size, **given)
    decoding = read_translator(source).decoding
    assert (decoding.early_stopping, decoding.no_repeat_ngram_size) == (bool(stops), ngram_size)


@pytest.mark.parametrize(("penalty", "expected"), [(1.2, 1.2), (0.9, 0.9), (1.0, 0), (None, 0)])
def test_the_repetition_penalty_is_read(penalty, expected, tmp_path):
    source = write_generation(write_marian(tmp_path / "source"), repetition_penalty=penalty)
    assert read_translator(source).decoding.repetition_penalty == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 0),
        ({"min_length": 0}, 0),
        ({"min_length": 1}, 0),
        ({"min_length": 56}, 55),
        ({"min_new_tokens": 7}, 7),
        ({"min_length": 56, "min_new_tokens": 7}, 7),
        ({"min_length": 56, "min_new_tokens": 0}, 0),
    ],
)
def test_the_minimum_length_counts_the_start_token(given, expected, tmp_path):
    source = write_generation(write_marian(tmp_path / "source"), **given)
    assert read_translator(source).decoding.min_output_tokens == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_repeat_ngram_size", 3),
        ("min_length", 3),
        ("min_new_tokens", 3),
        ("repetition_penalty", 1.2),
    ],
)
def test_tokens_are_not_left_out_of_renormalized_probabilities(name, value, tmp_path):
    source = write_marian(tmp_path / "source", renormalize_logits=True, **{name: value})
    message = f"{name} is {value}, which is not supported with renormalize_logits"
    with pytest.raises(CheckpointError, match=message):
        read_translator(source)


@pytest.mark.parametrize("eos", [0, [0]])
def test_the_end_token_may_be_a_list_of_one(eos, tmp_path):
    source = write_generation(write_marian(tmp_path / "source"), eos_token_id=eos)
    assert read_translator(source).model.tokens.eos_id == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eos_token_id", [0, 5]),
        ("stop_strings", ["."]),
        ("watermarking_config", {"bias": 2.0}),
        ("token_healing", True),
    ],
)
def test_an_option_without_support_is_named(field, value, tmp_path):
    source = write_generation(write_marian(tmp_path / "source"), **{field: value})
    with pytest.raises(CheckpointError, match=f"{field} is .*, which is not supported"):
        read_translator(source)


def test_options_that_only_pipelines_apply_are_named(tmp_path, caplog):
    tasks = {"summarization": {"num_beams": 4, "early_stopping": True, "prefix": "in short: "}}
    folder = tmp_path / "source"
    read_translator(write_marian(folder, num_beams=4, prefix=" ", task_specific_params=tasks))
    prefix, options = (record.getMessage() for record in caplog.records)
    assert "config.json: prefix is ' ', which pipelines of transformers put before" in prefix
    assert "config.json: early_stopping of task_specific_params, which pipelines" in options
