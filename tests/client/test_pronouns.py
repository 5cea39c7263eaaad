"""Winograd schemas: their files, the texts that are scored, and the scores of attention."""

import numpy as np
import pytest
from attendant_client.pronouns import Schema, SchemaError, maximum_attention, read_schemas

FILE = """
The vase fell on the plate and it broke.
it
The vase, the plate
the plate

My uncle visited Tom after his operation.
his
My uncle,Tom
Tom
"""


def test_schemas_are_read_with_their_lines():
    vase, uncle = read_schemas(FILE.splitlines())
    assert vase == Schema(
        "The vase fell on the plate and it broke.", 31, 33, ("The vase", "the plate"), 1, 2
    )
    assert (uncle.text[uncle.start : uncle.end], uncle.line) == ("his", 7)


def test_a_candidate_takes_the_place_of_the_pronoun_and_of_a_possessive():
    vase, uncle = read_schemas(FILE.splitlines())
    assert vase.filled("The vase") == ("The vase fell on the plate and the vase broke.", 39)
    text, end = uncle.filled("Tom")
    assert text == "My uncle visited Tom after Tom's operation."
    assert text[end:] == " operation."
    assert uncle.filled("the boys")[0].endswith("after the boys' operation.")


def test_the_first_word_keeps_its_capital_at_the_beginning_of_a_text():
    [schema] = read_schemas(["It fell on the plate.", "it", "The vase, the cup", "The vase"])
    assert schema.filled("The vase")[0] == "The vase fell on the plate."


def test_the_last_pronoun_is_meant_and_parts_of_words_are_none():
    [schema] = read_schemas(["He said he theorized.", "he", "Tom, Max", "Max"])
    assert (schema.start, schema.end) == (8, 10)


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (["It fell.", "it", "a cup, a vase"], "line 1: a schema has 4 lines, this one has 3"),
        (["It fell.", "it", "a cup", "a cup"], "line 1: at least two candidates between commas"),
        (["It fell.", "it", "a cup, ", "a cup"], "line 1: at least two candidates"),
        (["It fell.", "it", "a cup, a vase", "cup"], "line 1: 'cup' is not one of the candidates"),
        (["It fell.", "he", "a cup, a vase", "a cup"], "line 1: the text lacks the pronoun 'he'"),
    ],
)
def test_a_wrong_schema_is_named_by_its_line(block, problem):
    with pytest.raises(SchemaError, match=problem):
        list(read_schemas(block))


def test_a_candidate_that_the_text_lacks_has_no_attention():
    [schema] = read_schemas(["Tom fell because he slept.", "he", "Tom, Max", "Max"])
    with pytest.raises(SchemaError, match="line 1: the text lacks the candidate 'Max'"):
        schema.candidate_spans()


def test_each_head_counts_for_the_candidate_to_which_it_attends_most():
    weights = np.array([[[0.5, 0.1], [0.2, 0.3]], [[0.3, 0.4], [0.1, 0.1]]])
    # The first candidate gets 0.5, 0.2 and 0.3; the second 0.4.
    np.testing.assert_allclose(maximum_attention(weights), [1.0 / 1.4, 0.4 / 1.4])
