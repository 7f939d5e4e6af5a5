"""Checkpoints: which one is taken, what is wrong with a folder, and what may touch the network."""

import contextlib
import json
import logging
import os
import shlex
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.conftest import noise
from vision_reasoner import Box, VisionReasoner, inference
from vision_reasoner.errors import CheckpointError
from vision_reasoner.models import checkpoints, download
from vision_reasoner.models.checkpoints import (
    RELEASED,
    TRANSFORMERS_FILES,
    Part,
    check_transformers_folder,
    choose,
    digest,
    display_name,
    locate,
    revision_of,
)
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.results import Task


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty working folder, with no repository and no package around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "__file__", str(tmp_path / "package/vision_reasoner/models/checkpoints.py"))
    return tmp_path


def make_bundle(root: Path, name: str = "VisionReasoner-Tiny") -> Path:
    for part in RELEASED:
        (root / "pretrained_models" / name / part).mkdir(parents=True)
    return root / "pretrained_models" / name


# --- which ----------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("nowhere")
def test_without_any_checkpoint_the_download_command_is_named():
    with pytest.raises(CheckpointError, match="python -m vision_reasoner download"):
        choose()


def test_default_is_the_bundled_one_and_says_how_good_it_is_and_how_to_get_the_released(nowhere):
    bundle = make_bundle(nowhere)
    (bundle / "bundle.json").write_text(
        json.dumps({"summary": "right in 9 of 10 toy scenes, not made for photographs"})
    )
    choice = choose()
    assert Path(choice.reasoner).resolve() == bundle / "reasoner"
    assert Path(choice.router).resolve() == bundle / "router"
    assert Path(choice.segmenter).resolve() == bundle / "segmenter"
    assert choice.note is not None
    assert "\n" not in choice.note
    for words in (
        "VisionReasoner-Tiny",
        "9 of 10 toy scenes",
        "VisionReasoner-7B",
        "python -m vision_reasoner download",
    ):
        assert words in choice.note


def test_the_released_one_wins_where_it_is_there(nowhere):
    make_bundle(nowhere)
    (nowhere / "pretrained_models/VisionReasoner-7B").mkdir()
    choice = choose()
    assert choice.reasoner == "pretrained_models/VisionReasoner-7B"
    assert choice.router == "Ricky06662/TaskRouter-1.5B"
    assert choice.segmenter == "facebook/sam2-hiera-large"
    (nowhere / "pretrained_models/TaskRouter-1.5B").mkdir()
    assert choose().router == "pretrained_models/TaskRouter-1.5B"


@pytest.mark.parametrize("place", ["package", "package/vision_reasoner"])
def test_the_default_is_found_from_any_working_folder(nowhere, monkeypatch, place):
    bundle = make_bundle(nowhere / place)
    (nowhere / "elsewhere").mkdir()
    monkeypatch.chdir(nowhere / "elsewhere")
    assert Path(choose().reasoner) == bundle / "reasoner"


def test_a_given_bundle_gives_all_parts_and_no_note(nowhere):
    bundle = make_bundle(nowhere, "mine")
    choice = choose(bundle)
    assert (choice.reasoner, choice.segmenter) == (str(bundle / "reasoner"), str(bundle / "segmenter"))
    assert choice.note is None


@pytest.fixture
def hub_files(monkeypatch):
    """A Hub on which one repository has files, which land in a folder of the cache."""

    def prepare(names, folder):
        api = SimpleNamespace(file_exists=lambda hub_id, name, **_: (hub_id, name) in names)
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
        asked: list[tuple[str, list[str]]] = []

        def snapshot(hub_id, *, allow_patterns, **_):
            asked.append((hub_id, allow_patterns))
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        return asked

    return prepare


PARTS = ("reasoner/config.json", "router/config.json", "segmenter/config.yaml")


@pytest.mark.usefixtures("nowhere")
def test_a_bundle_on_the_hub_gives_all_parts(hub_files, tmp_path):
    asked = hub_files({("me/mine", name) for name in PARTS}, tmp_path)
    choice = choose("me/mine")
    assert (choice.reasoner, choice.router, choice.segmenter) == (
        *("me/mine/reasoner", "me/mine/router", "me/mine/segmenter"),
    )
    assert locate(choice.router, "router") == tmp_path / "router"
    assert asked == [("me/mine", [f"router/{pattern}" for pattern in TRANSFORMERS_FILES])]
    assert display_name(choice.reasoner) == "mine"


@pytest.mark.usefixtures("nowhere")
def test_all_parts_of_a_bundle_are_of_its_revision_and_others_of_their_own(hub_files, tmp_path):
    hub_files({("me/mine", name) for name in PARTS}, tmp_path)
    bundle = choose("me/mine", segmenter="me/other", revision="v1")
    parts: tuple[Part, ...] = ("reasoner", "router", "segmenter")
    assert [revision_of(part, bundle, "me/mine", "v1") for part in parts] == ["v1", "v1", None]
    alone = choose("me/alone", revision="v1")
    assert [revision_of(part, alone, "me/alone", "v1") for part in parts] == ["v1", None, None]


@pytest.mark.usefixtures("nowhere")
def test_a_reasoner_alone_on_the_hub_goes_with_the_released_parts(hub_files, tmp_path):
    hub_files({("me/mine", "config.json")}, tmp_path)
    assert choose("me/mine").router == RELEASED["router"].hub_id
    assert choose("me/mine", offline=True).reasoner == "me/mine"


def test_a_baseline_is_found_in_pretrained_models(nowhere):
    folder = nowhere / "pretrained_models" / "Qwen2.5-VL-7B-Instruct"
    folder.mkdir(parents=True)
    assert Path(choose(model="qwen").reasoner).resolve() == folder
    assert choose(model="qwen2").reasoner == "Qwen/Qwen2-VL-7B-Instruct"


@pytest.mark.parametrize("name", ["~nosuchuser/model", "a" * 5000, "a/" * 2500])
@pytest.mark.parametrize("part", ["model_path", "router", "segmenter"])
def test_a_name_that_can_be_no_path_is_one_line(bundle, name, part):
    with pytest.raises(CheckpointError, match="no such folder") as caught:
        choose(**{"model_path": bundle, part: name})
    assert len(str(caught.value)) < 400


def test_the_home_folder_may_be_abbreviated(nowhere, monkeypatch):
    monkeypatch.setenv("HOME", str(nowhere))
    bundle = make_bundle(nowhere, "mine")
    assert choose("~/pretrained_models/mine").router == str(bundle / "router")


def test_given_parts_win(nowhere):
    bundle, other = make_bundle(nowhere, "mine"), make_bundle(nowhere, "other")
    choice = choose(bundle, router=other, segmenter="owner/sam2")
    assert choice.router == str(other / "router"), "of a bundle the part is taken"
    assert choice.segmenter == "owner/sam2"
    assert choice.reasoner == str(bundle / "reasoner")


def test_a_given_hub_id_takes_the_released_router_and_segmenter(nowhere):
    make_bundle(nowhere)
    choice = choose("owner/model")
    assert (choice.reasoner, choice.router) == ("owner/model", RELEASED["router"].hub_id)


@pytest.mark.usefixtures("nowhere")
def test_a_baseline_has_its_own_default():
    assert choose(model="qwen").reasoner == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert choose("owner/model", model="qwen").reasoner == "owner/model"


# --- where ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def no_network(monkeypatch):
    """Counts attempts to connect or to look up a host, and lets none through."""
    attempts = []

    def refuse(*arguments, **_):
        attempts.append(arguments)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["pretrained_models/VisionReasoner-7B", "./missing", "/missing/x", "missing", "a/b/c"])
@pytest.mark.usefixtures("nowhere")
def test_a_missing_folder_is_not_taken_for_a_hub_id(no_network, name):
    with pytest.raises(CheckpointError, match="no such folder"):
        locate(name, "reasoner")
    assert not no_network


def test_a_file_is_no_checkpoint(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="give the folder"):
        locate(tmp_path / "model.safetensors", "reasoner")


@pytest.mark.usefixtures("empty_cache")
def test_offline_makes_no_network_attempt_at_all(no_network):
    with pytest.raises(CheckpointError, match="not on this machine"):
        locate("owner/model", "reasoner", offline=True)
    assert not no_network


def test_loading_and_using_local_folders_makes_no_network_attempt_at_all(bundle, no_network):
    model = VisionReasoner.from_pretrained(bundle, device="cpu", max_new_tokens=2)
    model.predict(noise(50, 50), "dog")
    model.segment(noise(50, 50), [Box(0, 0, 9, 9)])
    assert len(model.load_seconds) == 3
    assert not no_network


@pytest.mark.usefixtures("empty_cache")
def test_without_network_a_hub_id_fails_with_the_next_step(no_network):
    with pytest.raises(CheckpointError, match=r"cannot be reached.*python -m vision_reasoner download") as caught:
        locate("owner/model", "router")
    assert no_network
    assert "\n" not in str(caught.value)


def test_only_a_part_s_own_files_are_fetched(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _, **given: asked.update(given) or str(tmp_path))
    assert locate("owner/model", "reasoner", revision="v2") == tmp_path
    assert asked["revision"] == "v2"
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["allow_patterns"])
    locate("facebook/sam2.1-hiera-tiny", "segmenter")
    assert "model.safetensors" not in asked["allow_patterns"], "there it is in another library's layout"
    locate("owner/own-sam2", "segmenter")
    assert {"*.yaml", "model.safetensors"} <= set(asked["allow_patterns"])


# --- what is in it --------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    """A reasoner's folder to spoil."""
    return Path(shutil.copytree(bundle / "reasoner", tmp_path / "reasoner"))


def test_a_good_folder_gives_its_config(folder):
    assert check_transformers_folder(folder, "reasoner")["model_type"] == "qwen2_5_vl"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), "no model config"),
        (lambda f: (f / "config.json").write_text("[]"), "no model config"),
        (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "'llama' checkpoint"),
        (lambda f: (f / "model.safetensors").unlink(), "1 of 1 weight files are missing"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
            ),
            r"1 of 2 weight files are missing \(first model-2\.safetensors\)",
        ),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "not a weight index"),
    ],
)
def test_spoiled_folders_are_said_to_be_so(folder, spoil, message):
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        check_transformers_folder(folder, "reasoner")


def pipe(file):
    file.unlink()
    os.mkfifo(file)


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def template_of(folder, text):
    (folder / "chat_template.jinja").write_text(text)


def add_token(file, number):
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"]["zz"] = number
    file.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").write_text("[" * 100_000), "no model config"),
        (
            lambda f: change(f / "config.json", text_config={"num_hidden_layers": 10**9}),
            "num_hidden_layers is 1000000000",
        ),
        (lambda f: change(f / "config.json", vision_config={"depth": "many"}), "depth is many"),
        (lambda f: pipe(f / "config.json"), "no regular file"),
        (lambda f: (f / "vocab.json").symlink_to("/dev/zero"), "no regular file"),
        (lambda f: change(f / "generation_config.json", eos_token_id=10**6), "eos_token_id 1000000"),
        (lambda f: change(f / "generation_config.json", repetition_penalty=float("nan")), "repetition_penalty nan"),
        (lambda f: (f / "generation_config.json").write_text("[" * 100_000), "cannot be loaded"),
        (lambda f: change(f / "config.json", frame_side=28 * 10**6), "frame side of 28000000"),
        (lambda f: change(f / "config.json", image_token_id=5), "other tokens for an image"),
        (lambda f: change(f / "tokenizer_config.json", eos_token={"a": 1}), "cannot be loaded"),
        (lambda f: change(f / "tokenizer_config.json", model_max_length="many"), "cannot be loaded"),
        (lambda f: add_token(f / "tokenizer.json", 10**6), "has a token 1000000"),
        (lambda f: template_of(f, "{{ messages.nothing.at.all }}"), "its chat template cannot be used"),
        (lambda f: template_of(f, "{% for i in range(10**9) %}{% endfor %}"), "its chat template cannot be used"),
        (lambda f: template_of(f, "{{ 'x' * 10**10 }}"), "does not end or writes too much"),
        (lambda f: template_of(f, "without an image"), "cannot be loaded"),
        (lambda f: change(f / "generation_config.json", eos_token_id=[[1]]), "eos_token_id"),
        (lambda f: change(f / "generation_config.json", suppress_tokens=["x"]), "suppress_tokens"),
    ],
)
def test_hostile_folders_are_one_line_and_take_no_time(folder, spoil, message):
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        Reasoner.from_pretrained(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_beams_and_penalties_of_a_generation_config_are_ignored_and_said(folder, caplog):
    change(folder / "generation_config.json", num_beams=1000, guidance_scale=3.0, max_new_tokens=5)
    with caplog.at_level(logging.WARNING):
        reasoner = Reasoner.from_pretrained(folder, device="cpu")
    assert "num_beams=1000" in caplog.text
    assert "guidance_scale=3.0" in caplog.text
    picture = Image.new("RGB", (50, 50))
    assert reasoner.ask([picture], ["x"], tasks=[Task.VQA], max_new_tokens=7)[0].n_tokens <= 7


def test_a_bundle_where_a_part_belongs_is_pointed_into(bundle):
    with pytest.raises(CheckpointError, match=r"give .*reasoner"):
        check_transformers_folder(bundle, "reasoner")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"torn"), "cannot be loaded"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda f: (f / "processor_config.json").unlink(), "cannot be loaded"),
    ],
)
def test_what_does_not_load_is_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        Reasoner.from_pretrained(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_missing_weights_are_not_filled_with_noise(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "visual" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights are missing"):
        Reasoner.from_pretrained(folder, device="cpu")


def test_code_in_a_folder_is_not_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**processor, "auto_map": {"AutoProcessor": "evil.P"}}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with contextlib.suppress(CheckpointError):
        Reasoner.from_pretrained(folder, device="cpu")
    assert not (tmp_path / "ran").exists()


# --- the download command -------------------------------------------------------------------------------------------
class FakeHub:
    """Stands for the Hub: three files in each repository, of which a part wants one."""

    def __init__(self) -> None:
        self.fetched: list[tuple[str, Path]] = []

    def model_info(self, *_, **__):
        files = {"model.safetensors": 1000, "model.bin": 1000, "README.md": 5}
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in files.items()])

    def snapshot_download(self, hub_id, *, local_dir, **_):
        self.fetched.append((hub_id, local_dir))
        return str(local_dir)


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake.snapshot_download)
    return fake


def test_download_fetches_each_part_into_its_folder_and_says_sizes_first(hub, tmp_path, capsys):
    assert download.main(["--into", str(tmp_path / "models")]) == 0
    assert [(hub_id, folder.name) for hub_id, folder in hub.fetched] == [
        ("Ricky06662/VisionReasoner-7B", "VisionReasoner-7B"),
        ("Ricky06662/TaskRouter-1.5B", "TaskRouter-1.5B"),
        ("facebook/sam2-hiera-large", "sam2-hiera-large"),
    ]
    out, err = capsys.readouterr()
    assert "in 1 files" in err, "only what is read is counted"
    assert "free in" in err
    assert len(out.splitlines()) == 3


def test_download_takes_one_part(hub, tmp_path):
    assert download.main(["--what", "router", "--into", str(tmp_path)]) == 0
    assert len(hub.fetched) == 1


def test_download_of_a_set_says_how_to_run_it(hub, tmp_path, capsys):
    assert download.main(["--what", "laptop", "--into", str(tmp_path / "my models")]) == 0
    assert [hub_id for hub_id, _ in hub.fetched] == ["Qwen/Qwen3-VL-2B-Instruct", "facebook/sam2.1-hiera-tiny"]
    said = capsys.readouterr().err.splitlines()[-1].removeprefix("to use them: ")
    given = inference.build_parser().parse_args(shlex.split(said)[1:])
    assert given.model == "qwen3"
    assert given.model_path == str(tmp_path / "my models" / "Qwen3-VL-2B-Instruct")
    assert given.segmentation_model_path == str(tmp_path / "my models" / "sam2.1-hiera-tiny")
    assert given.task_router_model_path == "pretrained_models/VisionReasoner-Tiny"


@pytest.mark.parametrize("model", ["visurf", "qwen", "qwen2", "qwen3"])
def test_each_model_is_a_set_whose_checkpoint_it_then_takes(hub, nowhere, model):
    assert download.main(["--what", model]) == 0
    assert [hub_id for hub_id, _ in hub.fetched[1:]] == ["Ricky06662/TaskRouter-1.5B", "facebook/sam2-hiera-large"]
    (_, folder), *_ = hub.fetched
    (nowhere / folder).mkdir(parents=True)
    assert Path(choose(model=model).reasoner) == folder


@pytest.mark.usefixtures("nowhere")
def test_the_largest_checkpoint_of_a_model_that_is_here_is_taken(nowhere):
    for size in ("2B", "4B"):
        (nowhere / "pretrained_models" / f"Qwen3-VL-{size}-Instruct").mkdir(parents=True)
    assert Path(choose(model="qwen3").reasoner).name == "Qwen3-VL-4B-Instruct"


def test_download_stops_before_the_disk_is_full(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    assert download.main(["--into", str(tmp_path)]) == 4
    assert not hub.fetched
    assert "free" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("hub")
def test_what_is_there_already_needs_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    (tmp_path / "TaskRouter-1.5B").mkdir()
    (tmp_path / "TaskRouter-1.5B" / "model.safetensors").write_bytes(b"x" * 1000)
    assert download.main(["--what", "router", "--into", str(tmp_path)]) == 0


def test_download_without_network_fails_at_once_with_one_line(no_network, tmp_path, capsys):
    assert download.main(["--into", str(tmp_path)]) == 4
    message = capsys.readouterr().err
    assert message.startswith("error: Ricky06662/VisionReasoner-7B")
    assert "HF_ENDPOINT" in message
    assert len(message.splitlines()) == 1
    assert len(no_network) <= 2, "no retries"


# --- what it is -------------------------------------------------------------------------------------------------------
def test_the_digest_is_of_what_is_read_and_not_of_where_it_lies(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "b" / "README.md").write_text("not read")
    first = digest(tmp_path / "a", "reasoner")
    assert digest(tmp_path / "b", "reasoner") == first
    (tmp_path / "b" / "model.safetensors").write_bytes(b"Weights")
    assert digest(tmp_path / "b", "reasoner") != first
    (tmp_path / "b" / "model.safetensors").unlink()
    assert digest(tmp_path / "b", "reasoner") != first


def test_a_checkpoint_is_called_by_its_folder_id_or_bundle(tmp_path):
    for part in ("reasoner", "router", "segmenter"):
        (tmp_path / "Ours" / part).mkdir(parents=True)
    (tmp_path / "alone" / "reasoner").mkdir(parents=True)
    assert display_name("Qwen/Qwen2.5-VL-7B-Instruct") == "Qwen2.5-VL-7B-Instruct"
    assert display_name(str(tmp_path / "Ours" / "reasoner")) == "Ours"
    assert display_name(str(tmp_path / "alone" / "reasoner")) == "reasoner"


@pytest.mark.usefixtures("hub")
def test_a_download_into_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert download.main(["--what", "router", "--into", str(tmp_path / "file" / "models")]) == 2
    assert "give another folder with --into" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("hub")
def test_a_download_that_is_interrupted_is_one_line(monkeypatch, tmp_path, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.snapshot_download", interrupt)
    assert download.main(["--what", "router", "--into", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err.splitlines()[-1]
