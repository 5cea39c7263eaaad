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


def test_ngrams_are_not_left_out_of_renormalized_probabilities(tmp_path):
    source = write_marian(tmp_path / "source", renormalize_logits=True, no_repeat_ngram_size=3)
    message = "no_repeat_ngram_size is 3, which is not supported with renormalize_logits"
    with pytest.raises(CheckpointError, match=message):
        read_translator(source)
