"""Damaged tasks of T5 checkpoints, which state the prefixes of languages."""

import pytest
from attendant_export.importers.checkpoint import CheckpointError

from tests.support.imports import read_translator
from tests.support.t5_checkpoints import write_t5


@pytest.mark.parametrize("prefix", [None, 5, ["translate"]])
def test_a_prefix_that_is_no_text_is_refused(prefix, tmp_path):
    tasks = {"translation_en_to_de": {"prefix": prefix, "num_beams": 4}}
    source = write_t5(tmp_path / "source", task_specific_params=tasks)
    with pytest.raises(CheckpointError, match="translation_en_to_de.prefix is .*, want a text"):
        read_translator(source)
