"""The command line: its lines, its exit codes, what it loads when, and one picture's way through it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from tests.conftest import noise
from vision_reasoner import ScriptedReasoner, VisionReasoner, __version__, images
from vision_reasoner.errors import ImageError
from vision_reasoner.images import MAX_PIXELS
from vision_reasoner.inference import DEFAULT_IMAGE, DEFAULT_QUERY, TASKS, build_parser, expand, main
from vision_reasoner.models.reasoner import MAX_NEW_TOKENS, Reply
from vision_reasoner.parsing import MAX_OBJECTS
from vision_reasoner.prompts import VISION_REASONER
from vision_reasoner.results import Prediction, Task

ROOT = Path(__file__).resolve().parents[1]
ONE = '<think>It is on the left.</think><answer>[{"bbox_2d": [84, 84, 420, 420], "point_2d": [210, 168]}]</answer>'
NONE = "<think>There is none.</think><answer>[]</answer>"


@pytest.fixture
def picture(tmp_path: Path) -> str:
    noise(100, 50).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


@pytest.fixture
def says(monkeypatch):
    """Let the model say given replies."""

    def prepare(*replies, segmenter=None):
        model = VisionReasoner(ScriptedReasoner(replies), segmenter=segmenter)
        monkeypatch.setattr(VisionReasoner, "from_pretrained", lambda *_, **__: model)
        return model

    return prepare


def run(picture, tmp_path, *arguments):
    return main(["--image_path", picture, "--output_path", str(tmp_path / "out.png"), *arguments])


@pytest.mark.parametrize(
    ("task", "reply", "lines"),
    [
        (
            "detection",
            ONE,
            ["Thinking process: It is on the left.", "Total number of detected objects: 1"],
        ),
        (
            "counting",
            ONE,
            ["Thinking process: It is on the left.", "Total number of interested objects is: 1"],
        ),
        (
            "counting",
            NONE,
            ["Thinking process: There is none.", "Total number of interested objects is: 0"],
        ),
        ("vqa", "A dog.", ["The answer is: A dog."]),
    ],
)
def test_standard_output_has_the_original_s_lines_and_nothing_else(says, picture, tmp_path, capsys, task, reply, lines):
    says(reply)
    assert run(picture, tmp_path, "--query", "The dog?", "--task", task) == 0
    assert capsys.readouterr().out.splitlines() == [f"Task type: {task}", "User question: The dog?", *lines]
    assert Image.open(tmp_path / "out.png").width > 100


class FindsRed:
    """A reasoner that answers with the bounds of what is red in the picture that it is shown."""

    dialect = VISION_REASONER

    def ask(self, images, queries, **_):
        boxes = [list(red_bounds(image)) for image in images]
        texts = [
            f'<think>{q}</think><answer>[{{"bbox_2d": {b}}}]</answer>' for q, b in zip(queries, boxes, strict=True)
        ]
        return [Reply(text, image.size) for text, image in zip(texts, images, strict=True)]


def red_bounds(image):
    red, green, _ = image.split()
    bounds = ImageChops.subtract(red, green).point(lambda value: 255 * (value > 128)).getbbox()
    assert bounds is not None
    return bounds


def metadata(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'.encode()
    return {"exif": exif} if kind == "exif" else {"xmp": xmp}


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("kind", ["exif", "xmp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_from_phones_are_turned_once(tmp_path, capsys, monkeypatch, orientation, kind, many):
    upright = Image.new("RGB", (96, 64), (40, 40, 160))
    upright.paste((250, 0, 0), (8, 16, 32, 24))
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    turn = undo.get(orientation) or images._TURNS.get(orientation)
    stored = upright if turn is None else upright.transpose(turn)
    stored.save(tmp_path / "phone.jpg", quality=100, subsampling=0, **metadata(orientation, kind))
    model = VisionReasoner(FindsRed())
    monkeypatch.setattr(VisionReasoner, "from_pretrained", lambda *_, **__: model)
    where = ["--output_dir", str(tmp_path / "results")] if many else []
    assert run(str(tmp_path / "phone.jpg"), tmp_path, "--task", "detection", "--json", *where) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["image_size"] == [96, 64]
    assert np.abs(np.subtract(found["instances"][0]["box"], (8, 16, 32, 24))).max() <= 1
    with Image.open(tmp_path / "results/phone.png" if many else tmp_path / "out.png") as panels:
        left = panels.crop((0, 0, panels.width // 3, panels.height))  # the picture, enlarged eight times
    bounds = red_bounds(left)
    assert bounds[2] - bounds[0] == pytest.approx(8 * 24, abs=16)
    assert bounds[0] == pytest.approx(8 * 8 + 12, abs=16)


def test_segmentation_end_to_end_with_weights(bundle, picture, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vision_reasoner.model.Reasoner.from_pretrained", lambda *_, **__: ScriptedReasoner([ONE]))
    assert run(picture, tmp_path, "--task", "segmentation", "--model_path", str(bundle), "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["image"] == picture
    assert record["versions"]["vision_reasoner"] == __version__
    assert set(record["versions"]) >= {"torch", "transformers", "sam2"}
    prediction = Prediction.from_json(record)
    assert prediction.instances[0].mask is not None
    assert prediction.instances[0].mask.shape == (50, 100)


def test_json_is_one_object_and_standard_output_has_nothing_else(says, picture, tmp_path, capsys):
    says(ONE)
    run(picture, tmp_path, "--task", "counting", "--json")
    assert json.loads(capsys.readouterr().out)["count"] == 1


def test_warnings_go_to_standard_error_and_quiet_hushes_them(says, picture, tmp_path, capsys):
    cut = Reply(ONE + "x", (840, 840), finished=False, n_tokens=7)
    says(cut, cut)
    run(picture, tmp_path, "--task", "counting")
    assert "cut off after 7 tokens" in capsys.readouterr().err
    run(picture, tmp_path, "--task", "counting", "-q")
    assert capsys.readouterr().err == ""


# --- exit codes -----------------------------------------------------------------------------------------------------
def failing(arguments, capsys, code):
    """Run, check the exit code, and return the one line on standard error."""
    assert main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--task", "editing"], ["--batch_size", "x"], ["--imag", "a"]])
def test_wrong_options_exit_with_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_limit_of_nothing_exits_with_2(picture, bundle, capsys):
    failing(["--image_path", picture, "--model_path", str(bundle), "--max_new_tokens", "0"], capsys, 2)


@pytest.mark.parametrize("make", [lambda _: None, lambda f: f.write_bytes(b""), lambda f: f.write_bytes(b"no picture")])
def test_bad_pictures_exit_with_3_before_anything_loads(tmp_path, bundle, capsys, monkeypatch, make):
    monkeypatch.setattr("vision_reasoner.model.Reasoner.from_pretrained", None)
    make(tmp_path / "bad.png")
    line = failing(["--image_path", str(tmp_path / "bad.png"), "--model_path", str(bundle)], capsys, 3)
    assert "bad.png" in line


def test_urls_are_refused_with_3(bundle, capsys):
    failing(["--image_path", "https://example.org/a.png", "--model_path", str(bundle)], capsys, 3)


def test_an_empty_query_exits_with_3(picture, bundle, capsys):
    failing(["--image_path", picture, "--model_path", str(bundle), "--query", " ", "--task", "vqa"], capsys, 3)


def test_an_empty_folder_and_a_glob_without_match_exit_with_3(tmp_path, capsys):
    failing(["--image_path", str(tmp_path)], capsys, 3)
    failing(["--image_path", str(tmp_path / "*.png")], capsys, 3)


def test_missing_checkpoints_exit_with_4(picture, capsys):
    assert "no such folder" in failing(["--image_path", picture, "--model_path", "nowhere/at/all"], capsys, 4)


def test_spoiled_checkpoints_exit_with_4(picture, bundle, tmp_path, capsys):
    shutil.copytree(bundle, tmp_path / "b")
    (tmp_path / "b/reasoner/model.safetensors").write_bytes(b"torn")
    failing(["--image_path", picture, "--model_path", str(tmp_path / "b"), "--task", "vqa"], capsys, 4)


@pytest.mark.parametrize(("task", "reply"), [("counting", "I do not know"), ("vqa", " ")])
def test_an_unusable_reply_exits_with_6_and_shows_it(says, picture, tmp_path, capsys, task, reply):
    says(reply)
    assert run(picture, tmp_path, "--task", task) == 6
    assert repr(reply.strip()) in capsys.readouterr().err


def test_a_long_answer_cut_off_is_an_answer(says, picture, tmp_path):
    says(Reply("A very long answ", (840, 840), finished=False))
    assert run(picture, tmp_path, "--task", "vqa") == 0


def test_interruption_exits_with_130(says, picture, tmp_path, monkeypatch):
    model = says()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "predict_batch", interrupt)
    assert run(picture, tmp_path) == 130


def test_tracebacks_only_with_v(says, picture, tmp_path, capsys, monkeypatch):
    model = says()
    monkeypatch.setattr(model, "predict_batch", lambda *_, **__: 1 / 0)
    assert run(picture, tmp_path) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert run(picture, tmp_path, "-v") == 1
    assert "Traceback" in capsys.readouterr().err


# --- options --------------------------------------------------------------------------------------------------------
def test_dashes_serve_as_underscores(says, picture, tmp_path, capsys):
    says(ONE)
    assert (
        main(["--image-path", picture, f"--output-path={tmp_path}/a-b.png", "--query=red-dog", "--task=counting"]) == 0
    )
    assert (tmp_path / "a-b.png").is_file()
    assert "red-dog" in capsys.readouterr().out


def test_options_reach_the_model(picture, monkeypatch):
    given: dict[str, object] = {}

    def from_pretrained(**kwargs):
        given.update(kwargs)
        raise ImageError("stop")

    monkeypatch.setattr(VisionReasoner, "from_pretrained", from_pretrained)
    line = (
        "--model_path m --task_router_model_path r --segmentation_model_path s --model qwen --device cpu "
        "--dtype float16 --attn_implementation eager --compile off --max_new_tokens 7 --batch_size 3 --max_objects 5 "
        "--max_image_pixels 9 --offline --revision v1 --compat upstream"
    )
    assert main(["--image_path", picture, *line.split()]) == 3
    assert given == {
        "model_path": "m",
        "router": "r",
        "segmenter": "s",
        "model": "qwen",
        "device": "cpu",
        "dtype": "float16",
        "attn_implementation": "eager",
        "compile": "off",
        "max_new_tokens": 7,
        "batch_size": 3,
        "max_objects": 5,
        "max_image_pixels": 9,
        "offline": True,
        "revision": "v1",
        "compat": "upstream",
    }


def test_help_says_the_limits_that_the_library_has():
    text = re.sub(r"\s+", " ", build_parser().format_help())
    for limit in (MAX_NEW_TOKENS, MAX_OBJECTS, f"{MAX_PIXELS // 10**6} megapixels"):
        assert f"default: {limit}" in text
    assert VisionReasoner().settings.batch_size == 8
    assert "--batch_size N pictures at once; default: 8" in text
    assert set(TASKS) == {"auto", *Task}
    assert "examples:" in text


def test_defaults_are_the_original_s():
    defaults = build_parser().parse_args([])
    assert defaults.image_path == [DEFAULT_IMAGE] == ["assets/airplanes.png"]
    assert defaults.query == DEFAULT_QUERY == "How many airplanes are there in this image?"
    assert (defaults.task, defaults.output_path) == ("auto", "result_visualization.png")


# --- several pictures -------------------------------------------------------------------------------------------------
def test_files_folders_and_globs_are_expanded_in_order_without_repeats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("f/b.png", "f/a.JPG", "f/notes.txt", "f/sub/c.png", "g/1.png", "g/[odd].png", "one.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert expand(["one.png"]) == ([Path("one.png")], False)
    assert expand(["f"]) == ([Path("f/a.JPG"), Path("f/b.png")], True)
    assert expand(["g/*.png", "one.png", "g/1.png"])[0] == [Path("g/1.png"), Path("g/[odd].png"), Path("one.png")]
    assert expand(["f/**/*.png"])[0] == [Path("f/b.png"), Path("f/sub/c.png")]
    assert expand(["g/[odd].png"]) == ([Path("g/[odd].png")], False), "a file may be called like a glob"
    assert expand(["missing.png"]) == ([Path("missing.png")], False), "load_image says what is wrong"


def test_the_default_picture_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = ROOT / DEFAULT_IMAGE if (ROOT / DEFAULT_IMAGE).exists() else Path(DEFAULT_IMAGE)
    assert expand([DEFAULT_IMAGE])[0] == [expected]


# --- as a program -----------------------------------------------------------------------------------------------------
PROGRAMS = [["vision_reasoner/inference.py"], ["-m", "vision_reasoner"]]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_instant(program, option):
    seconds = []
    for _ in range(3):  # the machine may be busy
        start = time.perf_counter()
        run = subprocess.run([sys.executable, *program, option], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5
    assert ("examples:" if option == "--help" else __version__) in run.stdout


def test_as_a_script_it_needs_no_installation_and_no_working_folder(tmp_path):
    script = str(ROOT / "vision_reasoner/inference.py")  # isolated mode below: PYTHONPATH counts for nothing
    run = subprocess.run([sys.executable, "-I", script, "--version"], cwd=tmp_path, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_reader_that_goes_away_is_no_error(picture, tmp_path):
    program = (
        "import sys, os; from vision_reasoner.inference import main; from vision_reasoner import *; "
        f"VisionReasoner.from_pretrained = lambda *_, **__: VisionReasoner(ScriptedReasoner([{NONE!r}])); "
        f"sys.exit(main(['--image_path', {picture!r}, '--task', 'counting', "
        f"'--output_path', {str(tmp_path / 'o.png')!r}]))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr


@pytest.mark.parametrize("arguments", [["download", "--help"], ["--help"]])
def test_the_module_has_both_commands(arguments):
    run = subprocess.run(
        [sys.executable, "-m", "vision_reasoner", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ("--into" in run.stdout) is (arguments[0] == "download")
