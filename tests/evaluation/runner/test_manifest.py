"""What a run is of: the checkpoint that is taken, and what makes it another run."""

import json
from types import SimpleNamespace

import pytest

from evaluation.run import build_parser
from evaluation.runner.manifest import describe
from evaluation.runner.records import differences
from evaluation.runner.samples import Samples
from evaluation.suites import SUITES
from tests.support.runs import make_data
from vision_reasoner.data.sources import open_source
from vision_reasoner.errors import CheckpointError, UsageError
from vision_reasoner.models import checkpoints


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder with the bundled checkpoint, as far as its files are looked at, and a released one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "__file__", str(tmp_path / "package" / "vision_reasoner" / "checkpoints.py"))
    for name in ("VisionReasoner-Tiny/reasoner", "VisionReasoner-Tiny/router", "VisionReasoner-7B", "sam2-hiera-large"):
        folder = tmp_path / "pretrained_models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"name": name}))
    segmenter = tmp_path / "pretrained_models/VisionReasoner-Tiny/segmenter"
    segmenter.mkdir()
    (segmenter / "config.yaml").write_text("model:")
    return tmp_path


@pytest.fixture
def described(home):
    """Describes a run: checkpoints with settings, and manifest."""
    make_data(home / "data", "segmentation", 3)
    make_data(home / "numbers", "counting", 3)

    def run(suite="counting", data="numbers", *flags):
        arguments = build_parser().parse_args(["--suite", suite, "--device", "cpu", *flags])
        samples = Samples(SUITES[suite], open_source(data or SUITES[suite].data or ""))
        chosen, settings, manifest = describe(arguments, samples, None)
        return SimpleNamespace(**vars(chosen), **vars(settings)), manifest

    return run


def test_a_bundled_set_is_run_with_the_bundled_checkpoint_and_others_with_the_released_one(described):
    chosen, manifest = described("counting", None)
    assert chosen.reasoner.endswith("VisionReasoner-Tiny/reasoner")
    assert manifest["checkpoint"]["reasoner"]["name"] == "VisionReasoner-Tiny"
    chosen, manifest = described("counting", "numbers")
    assert chosen.reasoner.endswith("VisionReasoner-7B")
    _, manifest = described("counting", None, "--model_path", "pretrained_models/VisionReasoner-7B")
    assert manifest["checkpoint"]["reasoner"]["name"] == "VisionReasoner-7B"


def test_with_several_looks_another_calibration_is_another_run(described, home):
    folder = home / "pretrained_models/VisionReasoner-7B"
    alone, looks = (described("counting", "numbers", *flags)[1] for flags in ([], ["--looks", "2"]))
    (folder / "calibration.json").write_text("{}")
    assert described("counting", "numbers")[1] == alone, "one look has no confidence"
    again = described("counting", "numbers", "--looks", "2")[1]
    assert [key.partition(" ")[0] for key in differences(looks, again)] == ["settings.views.calibration"]


def test_parts_that_are_used_are_digested_and_no_others(described):
    assert set(described("counting")[1]["checkpoint"]) == {"reasoner"}
    chosen, manifest = described("segmentation", "data")
    assert set(manifest["checkpoint"]) == {"reasoner", "segmenter"}
    assert chosen.segmenter.endswith("sam2-hiera-large")
    chosen, _ = described("segmentation", "data", "--segmentation_model_path", "pretrained_models/VisionReasoner-Tiny")
    assert chosen.segmenter.endswith("VisionReasoner-Tiny/segmenter")


def test_options_reach_the_model(described):
    flags = "--compat upstream --max_new_tokens 7 --max_objects 5 --batch_size 3 --dtype float32 --offline"
    chosen, _ = described("counting", "numbers", *flags.split())
    expected = {"compat": "upstream", "max_new_tokens": 7, "max_objects": 5, "batch_size": 3, "dtype": "float32"}
    assert {name: getattr(chosen, name) for name in expected} == expected
    assert chosen.offline
    assert not chosen.logprobs


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--compat", "upstream"], "settings"),
        (["--max_new_tokens", "7"], "settings"),
        (["--dtype", "bfloat16"], "settings"),
        (["--quantize", "8bit"], "settings"),
        (["--limit", "2"], "n"),
        (["--model", "qwen", "--model_path", "pretrained_models/VisionReasoner-7B"], "prompt"),
        (["--model_path", "pretrained_models/VisionReasoner-Tiny"], "checkpoint"),
    ],
)
def test_what_changes_results_is_another_run(described, flags, part):
    assert described()[1][part] != described("counting", "numbers", *flags)[1][part]


def test_what_changes_no_result_is_the_same_run(described):
    first, second = (
        described()[1],
        described("counting", "numbers", "--batch_size", "2", "-q", "--protocol", "official")[1],
    )
    assert first == second


def test_changed_weights_are_another_checkpoint(described, home):
    first = described()[1]["checkpoint"]
    (home / "pretrained_models/VisionReasoner-7B/config.json").write_text("{}")
    assert described()[1]["checkpoint"] != first


def test_what_is_not_there_is_said(described):
    with pytest.raises(CheckpointError, match="no such folder"):
        described("counting", "numbers", "--model_path", "pretrained_models/missing")
    with pytest.raises(UsageError, match="cannot be used here"):
        described("counting", "numbers", "--device", "cuda:99")
