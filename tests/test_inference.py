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
from vision_reasoner.settings import Checkpoints, RunSettings

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
        monkeypatch.setattr(VisionReasoner, "from_settings", lambda *_, **__: model)
        return model

    return prepare


def run(picture, tmp_path, *arguments):
    output = [] if "--output_dir" in arguments else ["--output_path", str(tmp_path / "out.png")]
    return main(["--image_path", picture, *output, *arguments])


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
    monkeypatch.setattr(VisionReasoner, "from_settings", lambda *_, **__: model)
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
    given: list[object] = []

    def from_settings(*values):
        given.extend(values)
        raise ImageError("stop")

    monkeypatch.setattr(VisionReasoner, "from_settings", from_settings)
    line = (
        "--model_path m --task_router_model_path r --segmentation_model_path s --model qwen --device cpu "
        "--dtype float16 --attn_implementation eager --compile off --max_new_tokens 7 --batch_size 3 --max_objects 5 "
        "--max_image_pixels 9 --offline --revision v1 --compat upstream"
    )
    assert main(["--image_path", picture, *line.split()]) == 3
    assert given == [
        Checkpoints("m", "r", "s", revision="v1"),
        RunSettings(
            model="qwen",
            device="cpu",
            dtype="float16",
            attn_implementation="eager",
            compile="off",
            max_new_tokens=7,
            batch_size=3,
            max_objects=5,
            max_image_pixels=9,
            offline=True,
            compat="upstream",
        ),
    ]


def test_help_says_the_limits_that_the_library_has():
    text = re.sub(r"\s+", " ", build_parser().format_help())
    for limit in (MAX_NEW_TOKENS, MAX_OBJECTS, f"{MAX_PIXELS // 10**6} megapixels"):
        assert f"default: {limit}" in text
    assert VisionReasoner().settings.batch_size == 8
    assert "--batch_size N images at once; default: 8" in text
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


# --- odd names, consoles and folders ---------------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_console_cannot_show_is_shown_as_an_escape(bundle, picture, tmp_path, encoding):
    command = [
        sys.executable,
        "-c",
        "import sys; from vision_reasoner.inference import main; sys.exit(main(sys.argv[1:]))",
    ]
    command += ["--model_path", str(bundle), "--image_path", picture, "--task", "vqa", "--max_new_tokens", "3"]
    command += ["--query", "where is the 狗 – \udce9?", "--output_path", str(tmp_path / "out.png"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False)
    assert b"Traceback" not in done.stderr
    assert b"not valid Unicode" in done.stderr
    command[command.index("--query") + 1] = "where is the 狗?"
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False)
    assert done.returncode == 0, done.stderr
    assert b"where is the \\u72d7?" in done.stdout


def test_escape_codes_of_replies_queries_and_names_do_not_reach_the_terminal(says, tmp_path, capsys):
    noise(40, 40).save(tmp_path / "a\x1b[31m\nb.png")
    says("I \x1b[2J see")
    assert run(str(tmp_path / "a\x1b[31m\nb.png"), tmp_path, "--query", "what\x07?", "--task", "vqa") == 0
    assert run(str(tmp_path / "no\x1b[31m\nsuch.png"), tmp_path, "--query", "what?", "--task", "vqa") == 3
    out, err = capsys.readouterr()
    assert not set("\x1b\x07") & set(out + err)
    assert err.splitlines()[-1].startswith("error: ")
    assert "such.png" in err.splitlines()[-1]


@pytest.mark.parametrize("stem", ["x" * 245, "é" * 120, "caf\udce9", "...", "..", "a\nb"])
def test_odd_file_names_get_results_of_their_own(says, tmp_path, stem):
    folder = tmp_path / "images"
    folder.mkdir()
    noise(40, 40).save(folder / f"{stem}.png", format="PNG")
    says(ONE)
    out = tmp_path / "out"
    assert run(str(folder), tmp_path, "--task", "detection", "--output_dir", str(out)) == 0
    (record,) = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    assert (out / record["picture"]).is_file()
    assert {file.parent for file in tmp_path.rglob("*.png")} == {folder, out}


def test_a_link_at_the_output_path_is_written_through(says, picture, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out.png").symlink_to(tmp_path / "real" / "there.png")
    says(ONE)
    assert run(picture, tmp_path, "--task", "detection") == 0
    assert (tmp_path / "out.png").is_symlink()
    assert (tmp_path / "real" / "there.png").is_file()


def fails_to_load(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("vision_reasoner.model.Reasoner.from_pretrained", fail)
    monkeypatch.setattr("vision_reasoner.model.Router.from_pretrained", fail)


@pytest.mark.parametrize("flag", ["--output_path", "--output_dir"])
def test_a_place_that_cannot_be_written_is_said_before_a_model_is_loaded(
    picture, tmp_path, capsys, monkeypatch, flag, bundle
):
    fails_to_load(monkeypatch)
    (tmp_path / "file").write_text("not a folder")
    where = str(tmp_path / "file" / ("out.png" if flag == "--output_path" else "out"))
    assert main(["--image_path", picture, flag, where, "--model_path", str(bundle)]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".xyz", ""])
def test_an_ending_of_no_picture_is_said_before_a_model_is_loaded(
    picture, tmp_path, capsys, monkeypatch, ending, bundle
):
    fails_to_load(monkeypatch)
    arguments = ["--output_path", str(tmp_path / f"out{ending}"), "--model_path", str(bundle)]
    assert main(["--image_path", picture, *arguments]) == 2
    assert "cannot write a picture with the ending" in capsys.readouterr().err


def test_a_result_is_not_written_over_its_picture(picture, tmp_path, capsys):
    before = Path(picture).read_bytes()
    (tmp_path / "link.png").symlink_to(picture)
    for where in (picture, tmp_path / "link.png"):
        assert main(["--image_path", str(picture), "--output_path", str(where)]) == 2
        assert "is the picture itself" in capsys.readouterr().err
    assert Path(picture).read_bytes() == before


def test_an_output_path_for_many_images_is_refused(says, picture, tmp_path, capsys):
    says(ONE)
    assert main(["--image_path", picture, picture + "x", "--output_path", str(tmp_path / "a.png")]) == 2
    assert "--output_dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "--image_path is empty"),
        ("https://example.org/a.png", "addresses are not fetched"),
        ("~nosuchuser/a.png", "cannot be looked at"),
        ("x" * 5000, "cannot be looked at"),
        ("/dev/zero", "not a regular file"),
    ],
)
def test_paths_that_are_none_are_one_line(says, tmp_path, capsys, path, message):
    says(ONE)
    assert run(path, tmp_path, "--task", "detection") == 3
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_folders_are_read_without_the_files_that_macos_writes_beside_images(tmp_path):
    for name in ("a.jfif", "._a.jfif", "b.PNG", "._b.PNG"):
        noise(10, 10).save(tmp_path / name, format="PNG")
    assert [file.name for file in expand([str(tmp_path)])[0]] == ["a.jfif", "b.PNG"]
    assert [file.name for file in expand([str(tmp_path / "*.PNG")])[0]] == ["b.PNG"]


def test_one_unreadable_file_does_not_stop_the_others(says, tmp_path, monkeypatch):
    for name in ("a", "b"):
        noise(40, 40).save(tmp_path / f"{name}.png")
    real = Path.open

    def opened(self, *arguments, **settings):
        if self.name == "a.png" and self.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments, **settings)

    monkeypatch.setattr(Path, "open", opened)
    says(ONE)
    out = tmp_path / "out"
    assert run(str(tmp_path), tmp_path, "--task", "detection", "--output_dir", str(out)) == 7
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert ["error" in record for record in records] == [True, False]
