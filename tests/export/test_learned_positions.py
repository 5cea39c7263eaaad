"""Models with a table of learned positions are trained on texts for which it is long enough."""

from dataclasses import replace

import pytest
from attendant.v1.architecture_pb2 import POSITION_KIND_LEARNED
from attendant_export.data.translation_data import PairSource, TranslationData
from attendant_export.models.shapes import transformer
from attendant_export.runs.history import History
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.translation import train_translation

pytestmark = pytest.mark.usefixtures("quiet_threads")

NUM_POSITIONS = 6
SHORT, LONG = "a b\tc d\n", "a b c d e f\ta b\n"  # with the end token, 3 and 7 tokens


def network():
    """A network whose texts have at most `NUM_POSITIONS` tokens."""
    changed = transformer(40, 16, 2, 16, 1, 1)
    for part in (changed.source_embeddings, changed.target_embeddings):
        part.positions.kind, part.positions.num_positions = POSITION_KIND_LEARNED, NUM_POSITIONS
    return changed


@pytest.fixture
def data(tmp_path):
    """Three training pairs, of which one is too long, and two validation pairs that are short."""
    (tmp_path / "train.tsv").write_text(SHORT + LONG + SHORT)
    (tmp_path / "valid.tsv").write_text("a\tb\na b\tc d\n")
    return TranslationData(
        (PairSource(tmp_path / "train.tsv"),), tmp_path / "valid.tsv", vocab_size=40
    )


def train(data, tmp_path):
    train_translation(network(), data, TrainingOptions(max_steps=1), tmp_path / "run", device="cpu")


def test_training_pairs_with_more_tokens_than_positions_are_refused_by_line(data, tmp_path):
    with pytest.raises(ValueError, match=r"train\.tsv:2: more than 6 tokens on a side"):
        train(data, tmp_path)


def test_pairs_and_validation_sentences_that_are_too_long_are_left_out_and_counted(
    data, tmp_path, caplog
):
    with data.valid.open("a") as file:
        file.write(LONG)
    caplog.set_level("INFO")

    train(replace(data, skip_bad_lines=True), tmp_path)

    messages = "\n".join(caplog.messages)
    assert (
        "train.tsv: 2 pairs; 1 of 3 lines are left out: 1 more than 6 tokens on a side" in messages
    )
    assert (
        "--valid: 1 of 3 sentences have more than 6 tokens on a side and are left out" in messages
    )
    assert History(tmp_path / "run").rows[-1]["validation_loss"] > 0


def test_a_validation_file_whose_sentences_are_all_too_long_is_refused(data, tmp_path):
    data.valid.write_text(LONG)
    with pytest.raises(ValueError, match="--valid: 1 of 1 sentences have more than 6 tokens"):
        train(replace(data, skip_bad_lines=True), tmp_path)
