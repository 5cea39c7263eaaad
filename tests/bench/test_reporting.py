import json
from collections import Counter

import pytest

from bench import reporting
from bench.loads import LoadResult
from bench.reporting import compare, draw, figures_of, ratios_table, report, spread, table


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


def test_a_table_has_a_column_for_every_key_and_rounds_floats():
    rows = [{"a": "x", "b": 1.23456}, {"a": "y", "b": 2}]
    assert table(rows) == "| a | b |\n| --- | ---: |\n| x | 1.235 |\n| y | 2 |\n"


def result(num_texts: int, failures: Counter[str] | None = None) -> LoadResult:
    return LoadResult(2.0, [0.1], num_texts, failures=failures or Counter())


def test_a_system_is_compared_with_each_of_the_others_in_each_unit():
    measured = {"b": [result(4), result(8)], "a": [result(8), result(8)], "c": [result(2)] * 2}

    found = figures_of("some load", measured, ["texts/s", "p50 ms"], "a")

    assert [(f.rival, f.unit) for f in found] == [
        ("b", "texts/s"),
        ("b", "p50 ms"),
        ("c", "texts/s"),
        ("c", "p50 ms"),
    ]
    assert found[0].comparison == compare([4.0, 4.0], [2.0, 4.0])


def test_the_table_of_ratios_shows_failures():
    measured = {"attendant": [result(1, Counter(REFUSED=3))], "b": [result(1)]}

    assert "{'attendant': {'REFUSED': 3}}" in ratios_table(figures_of("l", measured, ["texts/s"]))


def test_results_are_kept_with_the_machine_they_were_measured_on(folders, capsys):
    report("some", {"figure": compare([1.0], [2.0])}, "a table")

    content = json.loads((folders / "results/some.json").read_text())
    assert content["machine"]["num_cores"] >= 1
    assert content["figure"]["ratio_of_medians"] == 0.5
    assert capsys.readouterr().out == "a table\n"


def test_results_without_a_table_are_printed_as_json(capsys):
    report("some", {"a": 1})

    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_pictures_go_into_the_documents_only_when_told(folders):
    curves = {"ours": ([1, 2, 4], [1.0, 2.0, 3.0])}

    assert draw("a", curves, "t", "x", "y", log_x=True).parent == folders / "results"
    path = draw("a", curves, "t", "x", "y", log_y=True, into_docs=True)

    assert path.parent == folders / "docs"
    assert path.read_text().startswith("<?xml")
