import pytest
from attendant_export.runs.records import DataSource, RunRecord, read_run_record, write_run_record
from attendant_export.train.start import describe_start

SOURCE = DataSource("sentences", "CC0-1.0", "Somebody.")


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = RunRecord("0.1.0", 7, "A recipe.", max_tokens=64, start_data=[SOURCE])
    write_run_record(tmp_path / "run", record)
    assert read_run_record(tmp_path / "run") == record


def test_what_a_run_did_not_record_is_not_made_up(tmp_path):
    record = read_run_record(tmp_path)
    assert (record.trainer_version, record.seed) == ("", None)


def test_a_record_of_an_older_version_is_read(tmp_path):
    (tmp_path / "run.json").write_text('{"seed": 3, "swap": true}')
    assert read_run_record(tmp_path) == RunRecord(seed=3, swap=True)


@pytest.mark.parametrize("text", ['{"sede": 3}', "[]", "nothing", '{"start_data": [{"name": ""}]}'])
def test_a_bad_record_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json is not the record of a run: "):
        read_run_record(tmp_path)


def test_a_run_that_has_started_keeps_its_record(tmp_path, caplog):
    write_run_record(tmp_path, RunRecord(seed=1, recipe="A recipe."))
    (tmp_path / "config.json").write_text("{}")

    write_run_record(tmp_path, RunRecord(seed=2, recipe="A recipe."))

    assert read_run_record(tmp_path).seed == 1
    assert "run.json is kept; this command differs from it in: seed" in caplog.text


def test_a_run_that_never_started_does_not_keep_its_record(tmp_path):
    write_run_record(tmp_path, RunRecord(seed=1))
    write_run_record(tmp_path, RunRecord(seed=2))
    assert read_run_record(tmp_path).seed == 2


def test_a_bundle_to_start_from_is_named_with_its_licence_and_credits(translation_bundle):
    text, sources = describe_start(translation_bundle)

    assert text == (
        "Started from the weights of the bundle tiny-en-de/1, licence CC0-1.0, trained on: "
        "Sentences of this project's tests. (CC0-1.0)."
    )
    assert sources == [
        DataSource("test sentences", "CC0-1.0", "Sentences of this project's tests.")
    ]


def test_a_run_to_start_from_is_named_without_its_path_and_hands_on_what_it_started_from(tmp_path):
    write_run_record(tmp_path / "first", RunRecord(start_data=[SOURCE]))

    text, sources = describe_start(tmp_path / "first")

    assert text == "Started from the weights of the run first."
    assert sources == [SOURCE]
