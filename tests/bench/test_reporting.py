import json

import pytest

from bench import reporting
from bench.reporting import Curve, compare, draw, markdown_table, save_results, spread


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(reporting, "PICTURES", tmp_path / "docs")
    return tmp_path


def test_a_spread_is_median_quartiles_and_extremes():
    found = spread([5.0, 1.0, 2.0, 3.0, 4.0])

    assert (found.least, found.lower_quartile, found.median) == (1, 2, 3)
    assert (found.upper_quartile, found.most, found.num_values) == (4, 5, 5)
    assert f"{found:.1f}" == "3.0 (2.0–4.0; 1.0–5.0)"


def test_a_single_value_has_no_spread():
    assert spread([2.0]) == reporting.Spread(2.0, 2.0, 2.0, 2.0, 2.0, 1)


def test_ratios_of_neighbours_are_free_of_what_both_felt():
    both = compare([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])

    assert both.ratio_of_medians == 0.5
    assert both.pair_ratios.least == both.pair_ratios.most == 0.5


def test_values_without_a_partner_are_refused():
    with pytest.raises(ValueError):
        compare([1.0, 2.0], [1.0])


def test_a_table_has_a_column_for_every_header():
    assert markdown_table(["a", "b"], [["x", 1]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_results_are_kept_with_the_machine_they_were_measured_on():
    path = save_results("some", {"figure": compare([1.0], [2.0])})

    content = json.loads(path.read_text())
    assert content["machine"]["num_cores"] >= 1
    assert content["figure"]["ratio_of_medians"] == 0.5


def test_pictures_go_into_the_documents_only_when_told(folders):
    curves = [Curve("ours", [1, 2, 4], [1.0, 2.0, 3.0])]

    assert draw("a", curves, "t", "x", "y", log_x=True).parent == folders / "results"
    path = draw("a", curves, "t", "x", "y", log_y=True, into_docs=True)

    assert path.parent == folders / "docs"
    assert path.read_text().startswith("<?xml")
