"""Checkpoints of versions 1 and 2 of OpenNMT-py are imported, and nothing in them runs."""

import pytest
import torch
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.families import read_model

from tests.export.test_ctranslate2_original import check, compared
from tests.support.old_opennmt_py import FORMS, SOURCE_SPECIAL, write_old_checkpoint
from tests.support.opennmt_py_files import SPECIAL, TARGET_TOKENS, write_checkpoint

SOURCE = (*SOURCE_SPECIAL, *"abcdefghijklmnop")
LANGUAGES = ("--source-languages", "en", "--target-languages", "de")
ARGUMENTS = ("--tokenizer", "characters", "--license", "MIT", *LANGUAGES)


def read(source):
    return read_model(Checkpoint(source), "characters")


@pytest.mark.parametrize("is_zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_old_vocabularies_gives_the_network_of_version_3(form, is_zipped, tmp_path):
    source = write_old_checkpoint(tmp_path / "old", SOURCE, TARGET_TOKENS, form, is_zipped)
    old = read(source)
    new = read(write_checkpoint(tmp_path / "new", SOURCE[:2] + SPECIAL[2:] + SOURCE[2:]))
    assert (old.model.architecture.d_model, old.model.tokens.bos_id) == (16, 2)
    assert old.model.architecture.encoder == new.model.architecture.encoder
    assert old.tokenizers.source.encode("abz").ids == [2, 3, 0]
    assert old.tokenizers.target.encode("AB").ids == [4, 5, 3]
    assert old.tokenizers.source_tokens.pad_id == old.tokenizers.source_tokens.eos_id == 1
    assert old.model.embedding.weight.shape == (len(SOURCE), 16)
    assert torch.isfinite(old.model(torch.tensor([[2, 3]]), torch.tensor([[2, 4, 5]]))).all()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("quiet_threads")
def test_an_old_checkpoint_gives_the_translations_of_ctranslate2(seed, tmp_path):
    pytest.importorskip("ctranslate2")
    source = write_old_checkpoint(tmp_path / "source", SOURCE, TARGET_TOKENS, seed=seed)
    check(compared(source, tmp_path / "bundles"))


def test_features_of_old_vocabularies_are_refused(tmp_path, refusal):
    source = write_old_checkpoint(tmp_path / "x", SOURCE, TARGET_TOKENS, num_features=1)
    assert "model.pt: features of src tokens are not supported" in refusal(source, *ARGUMENTS)


def test_an_object_that_contains_itself_is_refused(tmp_path, refusal):
    source = write_old_checkpoint(tmp_path / "x", SOURCE, TARGET_TOKENS, form="cycle")
    assert "the vocabulary src is not a list of tokens" in refusal(source, *ARGUMENTS)
