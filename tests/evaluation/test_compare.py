"""Two runs against each other: paired, on the same samples or not at all."""

import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from evaluation.compare import compare, main, table
from evaluation.runner.figures import compute_metrics
from tests.support.runs import disc, make_data, right, write_run
from vision_reasoner.geometry import Box
from vision_reasoner.results import Instance, Status


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data", "segmentation", 20)


def worse(sample):
    """Right, but for samples 2 (nothing found) and 5 (half of it)."""
    found = right(sample)
    if sample.index == 2:
        return right(sample, instances=[], status=Status.NONE)
    if sample.index == 5:
        return right(sample, instances=[replace(found.instances[0], mask=disc(5) & (np.arange(64) >= 30)[:, None])])
    return found


def figure(found, name, protocol="official"):
    return next(f for f in found["figures"] if (f["name"], f["protocol"]) == (name, protocol))


def test_a_run_does_not_differ_from_itself(tmp_path, data):
    run = write_run(tmp_path / "a", "segmentation", data)
    found = compare(run, run)
    assert found["n"] == 20
    assert found["changed"] == []
    assert found["figures"]
    assert all(f["difference"] == 0 for f in found["figures"])
    assert all((f["low"] or 0) <= 0 <= (f["high"] or 0) for f in found["figures"])


@pytest.mark.parametrize("suite", ["segmentation", "detection", "counting", "vqa"])
def test_both_sides_are_the_figures_of_the_reports(tmp_path, suite):
    def other(sample):
        nothing: dict[str, Any] = {"instances": [], "answer": "?" if suite == "vqa" else None, "status": Status.NONE}
        return right(sample, **nothing) if sample.index in (1, 6) else right(sample)

    data = make_data(tmp_path / "data", suite, 16)
    runs = [write_run(tmp_path / name, suite, data, answer) for name, answer in (("a", right), ("b", other))]
    found = compare(*runs)
    reports = [compute_metrics(run)["figures"] for run in runs]
    for side, report in zip(("first", "second"), reports, strict=True):
        expected = {(f["name"], f["protocol"]): f["value"] for f in report}
        assert {(f["name"], f["protocol"]): dict(f)[side] for f in found["figures"]} == pytest.approx(
            expected, nan_ok=True
        )
    assert {f["name"] for f in found["figures"] if f["difference"]}
    assert len(found["changed"]) == 2


def test_the_difference_is_second_minus_first_and_paired(tmp_path, data):
    runs = [write_run(tmp_path / "a", "segmentation", data), write_run(tmp_path / "b", "segmentation", data, worse)]
    found = compare(*runs)
    giou = cast("dict[str, float]", figure(found, "gIoU"))
    assert giou["second"] - giou["first"] == pytest.approx(giou["difference"])
    assert giou["low"] <= giou["difference"] < 0
    back = cast("dict[str, float]", figure(compare(*reversed(runs)), "gIoU"))
    assert (back["difference"], back["low"], back["high"]) == pytest.approx(
        (-giou["difference"], -giou["high"], -giou["low"])
    )
    # The spread of a naive paired bootstrap over images agrees with the interval's.
    ious = {s["id"]: s["change"] or 0.0 for s in found["changed"]}
    by_image: dict[str, list[float]] = {f"p{i}": [] for i in range(20) if i != 1}
    for i in range(20):
        sample_id = "p0/2" if i == 1 else f"p{i}/1"
        by_image[sample_id.split("/")[0]].append(ious.get(sample_id, 0.0))
    rng, groups = np.random.default_rng(1), list(by_image.values())
    draws = []
    for _ in range(4000):
        drawn = [change for g in rng.integers(len(groups), size=len(groups)) for change in groups[g]]
        draws.append(np.mean(drawn))
    half = 2.1 * float(np.std(draws))  # Student's t for 19 images
    assert (giou["low"], giou["high"]) == pytest.approx(
        (giou["difference"] - half, giou["difference"] + half), abs=0.01
    )


def test_changed_samples_come_with_both_scores_the_largest_change_first(tmp_path, data):
    first, second = (
        write_run(tmp_path / "a", "segmentation", data),
        write_run(tmp_path / "b", "segmentation", data, worse),
    )
    changed = compare(first, second)["changed"]
    assert [s["id"] for s in changed] == ["p2/1", "p5/1"]
    assert (changed[0]["from"], changed[0]["to"]) == ("1.00", "0.00")
    assert changed[0]["change"] == -1
    assert -0.7 < (changed[1]["change"] or 0) < -0.3


def test_failed_samples_are_in_no_figure_and_are_listed(tmp_path, data):
    def failing(sample):
        return RuntimeError("out of memory") if sample.index == 3 else right(sample)

    runs = [write_run(tmp_path / "a", "segmentation", data), write_run(tmp_path / "b", "segmentation", data, failing)]
    found = compare(*runs)
    assert (found["n"], found["left_out"]) == (19, 1)
    assert figure(found, "gIoU")["difference"] == 0
    assert [(s["id"], s["from"], s["to"], s["change"]) for s in found["changed"]] == [("p3/1", "1.00", "error", None)]


def test_counts_are_told_by_how_far_they_are_off(tmp_path):
    def one_more(sample):
        found = right(sample)
        extra = [*found.instances, Instance(Box(60, 30, 70, 40))]
        return right(sample, instances=extra, status=Status.OK) if sample.index == 1 else found

    data = make_data(tmp_path / "data", "counting")
    found = compare(write_run(tmp_path / "a", "counting", data), write_run(tmp_path / "b", "counting", data, one_more))
    assert [(s["from"], s["to"]) for s in found["changed"]] == [("exact", "+1")]
    assert figure(found, "MAE")["difference"] == pytest.approx(0.1)


def test_runs_on_different_data_are_refused(tmp_path, data, capsys):
    other = make_data(tmp_path / "other", "segmentation", 19)
    runs = [write_run(tmp_path / "a", "segmentation", data), write_run(tmp_path / "b", "segmentation", other)]
    assert main([str(run) for run in runs]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "different data" in streams.err
    assert streams.err.count("\n") == 1


def test_runs_of_different_suites_are_refused(tmp_path, data, capsys):
    other = make_data(tmp_path / "other", "counting")
    runs = [write_run(tmp_path / "a", "segmentation", data), write_run(tmp_path / "b", "counting", other)]
    assert main([str(run) for run in runs]) == 2
    assert "segmentation and counting" in capsys.readouterr().err


def test_the_same_data_with_another_truth_is_refused(tmp_path, data, capsys):
    first, second = (write_run(tmp_path / name, "segmentation", data) for name in "ab")
    samples = second / "samples.jsonl"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    lines[4]["truth_digest"] = "another"
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(first), str(second)]) == 2
    assert "different truths" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(tmp_path, data, capsys):
    first, second = (write_run(tmp_path / name, "segmentation", data) for name in "ab")
    samples = second / "samples.jsonl"
    samples.write_bytes(samples.read_bytes()[:-30])
    assert main([str(first), str(second)]) == 3
    assert "missing" in capsys.readouterr().err
    assert main([str(first), str(tmp_path / "nowhere")]) == 3


def test_what_is_printed(tmp_path, data, capsys):
    runs = [write_run(tmp_path / "a", "segmentation", data), write_run(tmp_path / "b", "segmentation", data, worse)]
    assert main([str(run) for run in runs]) == 0
    text = capsys.readouterr().out
    for words in ("20 samples of both", "gIoU", "upstream", "B - A", "2 samples changed", "p2/1", "1.00 -> 0.00"):
        assert words in text
    assert main([*(str(run) for run in runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == compare(*runs)


def test_several_are_compared_with_the_first_each(tmp_path, data, capsys):
    runs = [
        write_run(tmp_path / name, "segmentation", data, answer)
        for name, answer in zip("abc", (right, worse, right), strict=True)
    ]
    assert main([*(str(run) for run in runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [compare(runs[0], runs[1]), compare(runs[0], runs[2])]
    assert main([str(run) for run in runs]) == 0
    out = capsys.readouterr().out
    assert out.count("20 samples of both") == 2
    assert f"B: {runs[2]}" in out
    other = write_run(tmp_path / "d", "counting", make_data(tmp_path / "more", "counting", 4))
    assert main([*(str(run) for run in runs), str(other)]) == 2
    assert "runs of segmentation and counting" in capsys.readouterr().err


def test_long_lists_of_changes_are_cut(tmp_path, data):
    runs = [
        write_run(tmp_path / "a", "segmentation", data),
        write_run(tmp_path / "b", "segmentation", data, lambda s: right(s, instances=[], status=Status.NONE)),
    ]
    found = compare(*runs)
    assert len(found["changed"]) == 16
    assert "... and 11 more" in table(found, shown=5)
    assert "* " not in table(found, shown=5).splitlines()[0]
