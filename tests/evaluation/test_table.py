"""Several runs in one table: what stands in one row can be compared."""

import csv
import io
import json
from pathlib import Path

import pytest

from evaluation.runner.figures import write_report
from evaluation.runner.records import METRICS
from evaluation.table import main
from tests.support.runs import make_data, right, write_run
from vision_reasoner.results import Status


def reported(folder, suite, data, answer=right, **manifest):
    write_report(write_run(folder, suite, data, answer, **manifest))
    return str(folder)


def checkpoint(name, digest="0"):
    return {"checkpoint": {"reasoner": {"name": name, "digest": digest * 64}}}


def worse(sample):
    return right(sample, instances=[], answer="?", status=Status.NONE) if sample.index % 2 else right(sample)


def rows_of(text):
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    assert lines[1] == ["---"] * len(lines[0])
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


@pytest.fixture
def runs(tmp_path):
    """Two checkpoints on one set, one of them on another set too."""
    data = {suite: make_data(tmp_path / "data" / suite, suite) for suite in ("vqa", "counting")}
    return [
        reported(tmp_path / "a", "vqa", data["vqa"], **checkpoint("One")),
        reported(tmp_path / "b", "vqa", data["vqa"], worse, **checkpoint("Two_2", "1")),
        reported(tmp_path / "c", "counting", data["counting"], **checkpoint("One")),
    ]


def test_a_row_for_each_figure_and_a_column_for_each_checkpoint(runs, capsys):
    assert main(runs) == 0
    rows = rows_of(capsys.readouterr().out)
    assert list(rows[0]) == ["suite", "data", "samples", "figure", "One", "Two_2"]
    first = rows[0]
    assert (first["suite"], first["data"], first["samples"], first["figure"]) == (
        "vqa",
        "toys test",
        "10",
        "exact match",
    )
    assert first["One"].startswith("100.0 [")
    assert first["Two_2"].startswith("50.0 [")
    counting = {row["figure"]: row for row in rows if row["suite"] == "counting"}
    assert counting["accuracy (upstream)"]["One"].startswith("100.0 [")
    assert counting["accuracy"]["Two_2"] == ""
    assert "toys" in rows[-1]["data"]


def test_figures_and_protocol_can_be_chosen(runs, capsys):
    assert main([*runs, "--figure", "ANLS", "--figure", "accuracy", "--protocol", "official"]) == 0
    assert [row["figure"] for row in rows_of(capsys.readouterr().out)] == ["ANLS", "accuracy"]
    assert main([*runs, "--figure", "Bleu"]) == 2
    assert "--figure Bleu: no run has it; there are exact match, ANLS" in capsys.readouterr().err


def test_csv_has_all_numbers(runs, capsys):
    assert main([*runs, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = [figure for run in runs for figure in json.loads((Path(run) / METRICS).read_text())["figures"]]
    assert len(rows) == len(expected)
    for row, figure in zip(rows, expected, strict=True):
        assert (row["figure"], row["protocol"], int(row["n"])) == (figure["name"], figure["protocol"], figure["n"])
        assert float(row["value"]) == figure["value"]
    assert {row["run"] for row in rows} == set(runs)
    assert {row["checkpoint"] for row in rows} == {"One", "Two_2"}


def test_latex_is_a_tabular_without_bare_special_characters(runs, capsys):
    assert main([*runs, "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("% needs \\usepackage{booktabs}\n\\begin{tabular}{llrlll}\n\\toprule\nsuite & data & ")
    assert text.rstrip().endswith("\\bottomrule\n\\end{tabular}")
    assert "Two\\_2" in text
    body = text.split("\\toprule\n")[1].split("\\bottomrule")[0]
    assert {line.count(" & ") for line in body.splitlines() if line != "\\midrule"} == {5}


def test_what_differs_stands_in_rows_or_columns_of_its_own(tmp_path, capsys):
    data, other = (make_data(tmp_path / name, "vqa", n) for name, n in (("x", 6), ("y", 8)))
    same = [
        reported(tmp_path / "a", "vqa", data, **checkpoint("One")),
        reported(tmp_path / "b", "vqa", data, worse, **checkpoint("One", "1")),
        reported(tmp_path / "c", "vqa", other, **checkpoint("One")),
    ]
    assert main([*same, "--figure", "ANLS"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert list(rows[0])[4:] == same, "one name for two checkpoints: the folders tell them apart"
    assert len({row["data"] for row in rows}) == 2, "one name for two data sets: the fingerprints tell them apart"
    assert [[bool(row[run]) for run in same] for row in rows] == [[True, True, False], [False, False, True]]


def test_failed_samples_are_said(tmp_path, capsys):
    data = make_data(tmp_path / "data", "vqa", 6)
    run = reported(tmp_path / "a", "vqa", data, lambda s: RuntimeError("odd") if s.index == 2 else right(s))
    assert main([run]) == 0
    assert all(row["Toy"].endswith(" (1 failed)") for row in rows_of(capsys.readouterr().out))


@pytest.mark.parametrize("damage", ["nowhere", "no figures", "[]", '{"figures": [{}]}', '{"figures": 3}'])
def test_what_is_no_finished_run_is_one_line(tmp_path, capsys, damage):
    data = make_data(tmp_path / "data", "vqa", 3)
    run = tmp_path / "a"
    if damage != "nowhere":
        write_run(run, "vqa", data)
    if damage[0] in "[{":
        (run / METRICS).write_text(damage)
    assert main([str(run)]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_a_run_given_twice_is_refused(runs, capsys):
    assert main([runs[0], runs[0] + "/"]) == 2
    assert "given twice" in capsys.readouterr().err
