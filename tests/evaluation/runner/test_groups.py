"""Figures by the values of a column: those of the group's samples alone."""

import json

import pytest

from evaluation.report import main
from evaluation.runner.figures import compute_metrics, table
from evaluation.runner.records import METRICS, SAMPLES
from tests.support.runs import make_data, right, write_run
from vision_reasoner.results import Status


def with_columns(data, **columns):
    """The data set with more columns, a function of the row's number each."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows = [row | {name: value(i) for name, value in columns.items()} for i, row in enumerate(rows)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


def wrong(*numbers):
    """An answer that is right but for the samples with these numbers."""

    def answer(sample):
        changes = {"answer": "?", "instances": [], "status": Status.NONE}
        return right(sample, **changes) if sample.index in numbers else right(sample)

    return answer


def of(metrics, column):
    (found,) = [one for one in metrics["by"] if one["column"] == column]
    return {group["value"]: group for group in found["groups"]}


def value(group, name):
    return next(figure["value"] for figure in group["figures"] if figure["name"] == name)


def test_each_group_has_the_figures_of_its_samples(tmp_path):
    data = with_columns(make_data(tmp_path / "data", "vqa"), type=lambda i: "human" if i < 4 else "augmented")
    run = write_run(tmp_path / "run", "vqa", data, wrong(0, 7))
    metrics = compute_metrics(run, ["type"])
    groups = of(metrics, "type")
    assert list(groups) == ["augmented", "human"]
    assert {name: (group["n"], value(group, "exact match")) for name, group in groups.items()} == {
        "human": (4, 0.75),
        "augmented": (6, pytest.approx(5 / 6)),
    }
    assert all(group["figures"][0]["low"] < value(group, "exact match") for group in groups.values())
    assert "by" not in compute_metrics(run)
    lines = table(metrics).splitlines()
    assert next(line for line in lines if line.startswith("human")).split()[:3] == ["human", "4", "75.0"]


def test_a_group_s_figures_are_those_of_a_run_of_it_alone(tmp_path):
    data = with_columns(make_data(tmp_path / "data", "detection", 12), half=lambda i: i % 2)
    run = write_run(tmp_path / "run", "detection", data, wrong(3, 4))
    groups = of(compute_metrics(run, ["half"]), "half")
    rows = data.read_text().splitlines(keepends=True)
    data.write_text("".join(rows[1::2]))
    alone = write_run(tmp_path / "alone", "detection", data, lambda s: wrong(1)(s))
    for name in ("F1 at IoU 0.5", "COCO AP"):
        expected = next(
            f for f in compute_metrics(alone)["figures"] if (f["name"], f["protocol"]) == (name, "official")
        )
        assert value(groups["1"], name) == pytest.approx(expected["value"])
    assert {figure["protocol"] for figure in groups["1"]["figures"]} == {"official"}


@pytest.mark.parametrize(
    ("suite", "column", "expected"),
    [
        ("counting", "targets", {"0": 3, "1": 3, "2": 2, "3": 2}),
        ("counting", "count", {"0": 3, "1": 3, "2": 2, "3": 2}),
        ("detection", "targets", {"1": 10}),
        ("detection", "cat_id", {"1": 5, "2": 5}),
        ("segmentation", "targets", {"0": 2, "1 or more": 8}),
        ("vqa", "kinds", {"a": 10, "even": 5}),
        ("vqa", "level", {"9": 5, "10": 5}),
        ("vqa", "some", {"(none)": 9, "x": 1}),
    ],
)
def test_groups_are_by_columns_lists_and_numbers_of_targets(tmp_path, suite, column, expected):
    data = with_columns(
        make_data(tmp_path / "data", suite),
        kinds=lambda i: ["a", "even"] if i % 2 else ["a"],
        level=lambda i: 9.0 if i % 2 else 10.0,
        some=lambda i: "x" if i == 3 else None,
    )
    groups = of(compute_metrics(write_run(tmp_path / "run", suite, data), [column]), column)
    assert {name: group["n"] for name, group in groups.items()} == expected
    assert list(groups) == list(expected)


def test_failed_samples_are_counted_in_their_group(tmp_path):
    data = with_columns(make_data(tmp_path / "data", "counting"), half=lambda i: i % 2)
    run = write_run(
        tmp_path / "run", "counting", data, lambda s: RuntimeError("odd") if s.index in (1, 2, 3) else right(s)
    )
    groups = of(compute_metrics(run, ["half"]), "half")
    assert {name: (group["n"], group["errors"]) for name, group in groups.items()} == {"0": (5, 1), "1": (5, 2)}


def test_a_suite_s_own_groups_need_no_flag(tmp_path):
    data = with_columns(
        make_data(tmp_path / "data", "vqa"), type=lambda i: "human" if i % 2 else "augmented", answer=lambda i: str(i)
    )
    assert set(of(compute_metrics(write_run(tmp_path / "run", "chartqa", data)), "type")) == {"human", "augmented"}


def test_the_report_takes_columns_and_says_what_there_is(tmp_path, capsys):
    data = with_columns(make_data(tmp_path / "data", "vqa", 6), type=lambda i: i % 2, long=lambda _: "x" * 300)
    run = write_run(tmp_path / "run", "vqa", data)
    assert main([str(run), "--by", "type", "--by", "question"]) == 0
    assert "by type" in capsys.readouterr().out
    assert [one["column"] for one in json.loads((run / METRICS).read_text())["by"]] == ["type", "question"]
    for column in ("typ", "long", "image", "targets"):
        assert main([str(run), "--by", column]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --by {column}: there is no such column")
        assert line.endswith("ann_id, answers, image_id, question, type")


def test_records_of_before_and_columns_of_many_values_are_refused(tmp_path, capsys):
    run = write_run(tmp_path / "run", "vqa", make_data(tmp_path / "data", "vqa", 3))
    lines = [json.loads(line) for line in (run / SAMPLES).read_text().splitlines()]
    (run / SAMPLES).write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "columns"}) + "\n" for line in lines)
    )
    assert main([str(run)]) == 0
    assert main([str(run), "--by", "question"]) == 2
    many = [json.dumps({**lines[0], "index": i, "columns": {"x": i}}) for i in range(201)]
    (run / SAMPLES).write_text("\n".join(many))
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "n": 201}))
    capsys.readouterr()
    assert main([str(run), "--by", "x"]) == 2
    assert "--by x: has 201 values" in capsys.readouterr().err

    (run / SAMPLES).write_text("\n".join([json.dumps({**lines[0], "columns": [1]}), *many[1:]]))
    assert main([str(run)]) == 3


def test_a_suite_s_own_column_with_many_values_costs_no_figure(tmp_path, caplog):
    data = with_columns(make_data(tmp_path / "data", "vqa", 3), type=str, answer=str)
    run = write_run(tmp_path / "run", "chartqa", data)
    line = json.loads((run / SAMPLES).read_text().splitlines()[0])
    many = [json.dumps({**line, "index": i, "columns": {"type": f"kind {i}"}}) for i in range(201)]
    (run / SAMPLES).write_text("\n".join(many))
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "n": 201}))
    metrics = compute_metrics(run)
    assert metrics["figures"]
    assert "by" not in metrics
    assert "--by type: has 201 values" in caplog.text
