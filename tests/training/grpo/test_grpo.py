"""GRPO: sees what inference sees, computes what TRL computes, goes on where it stopped, leaves what can be loaded."""

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("trl", reason="GRPO needs the extra .[train]")

import datasets
import torch
from safetensors.torch import load_file
from transformers.cache_utils import DynamicLayer
from trl import GRPOTrainer
from trl.data_utils import prepare_multimodal_messages

from tests.conftest import noise
from tests.support import drawings, tiny
from vision_reasoner.data.rows import columns_of, make_row
from vision_reasoner.data.solutions import Target
from vision_reasoner.data.tables import write_table
from vision_reasoner.errors import DataError, UsageError
from vision_reasoner.geometry import Box, Point
from vision_reasoner.models import local
from vision_reasoner.models.checkpoints import choose
from vision_reasoner.models.reasoner import Reasoner
from vision_reasoner.models.router import COUNTING, OBJECTS, Router
from vision_reasoner.results import Task
from vision_reasoner.training import prepare, runs
from vision_reasoner.training.grpo import __main__ as grpo
from vision_reasoner.training.grpo import trainer as trainer_module
from vision_reasoner.training.grpo.policies import (
    Policy,
    Rows,
    answer_tokens,
    box_f1,
    load_policy,
    read_requests,
    reply_scores,
    right_category,
    router_row,
    scene_row,
    table_rows,
)
from vision_reasoner.training.grpo.trainer import PreallocatedLayer, Trainer, train, trl_config
from vision_reasoner.training.runs import EMA, as_dataset, last_checkpoint, read_best

SIDE = tiny.FRAME_SIDE
SIZE = (SIDE, SIDE)
TARGET = Target(Box.from_inclusive(10, 10, 49, 49), Point(30, 30))
QUERIES = ("the dog", "Find the red car.", "how many cups are on the table?", "all cats")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent anywhere, and what `datasets` keeps of a table is kept for the test alone."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("telemetry was sent")

    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16, so that what should be equal is equal but for rounding."""
    monkeypatch.setattr(runs, "has_bfloat16", lambda: False)


def write_rows(folder: Path, n: int = 10, **changes: Any) -> Path:
    """A table of rows in the tiny frame; `changes` are made to the second."""
    rows = []
    for i in range(n):
        row = make_row(str(i), QUERIES[i % len(QUERIES)], noise(90, 70, seed=i), [TARGET] * (i % 3), SIDE)
        rows.append(row | (changes if i == 1 else {}))
    write_table(folder, "train", columns_of("hub"), rows)
    return folder


def settings_for(bundle: Path, tmp_path: Path, *flags: object) -> argparse.Namespace:
    """Of two steps with two prompts and two rollouts each, short replies, and figures after every step."""
    small = {"model_path": bundle, "output_dir": tmp_path / "run", "max_steps": 2, "batch_size": 2, "threads": 1}
    small |= {"num_generations": 2, "micro_batch": 1, "max_new_tokens": 6, "eval_every": 1, "eval_n": 2, "lr": 1e-3}
    small |= {"save_every": 1, "sample_every": 1, "beta": 0.01, "temperature": 1.0, "average": 0}
    given = [str(flag) for flag in flags]
    arguments = [
        part for name, value in small.items() for part in (f"--{name}", str(value)) if f"--{name}" not in given
    ]
    return grpo.complete(grpo.build_parser().parse_args(["--preset", "tiny", *arguments, *given]))


@pytest.fixture
def settings(bundle: Path, tmp_path: Path) -> argparse.Namespace:
    return settings_for(bundle, tmp_path, "--data", write_rows(tmp_path / "rows"))


def vowels(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward that the noise of a random model gets different amounts of."""
    return [float(sum(character in "aeiou\n " for character in reply[0]["content"])) for reply in completions]


def make_trainer(settings: argparse.Namespace, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    policy = dataclasses.replace(load_policy(settings), **changes)
    Path(settings.output_dir).mkdir(exist_ok=True)
    return Trainer(policy, settings, trl_config(settings, first=True))


# --- the command line -------------------------------------------------------------------------------------------------
def test_help_needs_neither_torch_nor_trl() -> None:
    code = (
        "import sys; from vision_reasoner.training.grpo import __main__ as grpo; grpo.build_parser().format_help(); "
        "assert not {'torch', 'trl', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_defaults_are_the_published_recipe() -> None:
    flags = ["--model_path", "a/b", "--data", "c/d"]
    settings = grpo.complete(grpo.build_parser().parse_args(flags))
    config = trl_config(settings, first=True)
    assert config.generation_batch_size == 16 * 8
    assert (config.num_generations, config.learning_rate, config.weight_decay) == (8, 1e-6, 0.01)
    assert (config.beta, config.temperature, config.max_completion_length) == (0.01, 1.0, 2000)
    assert (config.num_train_epochs, config.max_steps, config.lr_scheduler_type) == (1, -1, "constant")
    assert (config.loss_type, config.use_bias_correction_kl) == ("bnpo", False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --model_path"),
        (["--model_path", "a/b"], "give --data"),
        (["--preset", "tiny", "--num_generations", "1"], "at least 2"),
        (["--preset", "tiny", "--eval_every", "0"], "--eval_every 0: must be at least 1"),
        (["--preset", "tiny", "--max_steps", "-1"], "give --max_steps"),
        (["--preset", "tiny", "--what", "router", "--without", "thinking"], "not for a router"),
        (["--preset", "tiny", "--lora", "--freeze", "language"], "leaves as it is"),
        (["--preset", "tiny", "--average", "1"], "less than 1"),
        (["--preset", "tiny", "--eval_data", "rows"], "goes with --data"),
        (["--preset", "tiny", "--data", "rows", "--no_target_share", "0.5"], "is of scenes"),
        (["--preset", "tiny", "--data", "rows", "--rehearsed_share", "0.5"], "--rehearsed_share is of scenes"),
        (["--preset", "tiny", "--no_target_share", "1"], "--no_target_share 1.0: must be"),
        (["--preset", "tiny", "--epochs", "2"], "give --max_steps"),
        (["--preset", "tiny", "--max_steps", "0"], "--max_steps 0: must be at least 1"),
        (["--preset", "tiny", "--max_steps", "-2"], "--max_steps -2: must be at least 1"),
        (["--preset", "tiny", "--data", "rows", "--epochs", "0"], "--epochs 0.0: must be more than 0"),
        (["--preset", "tiny", "--lr=-1e-5"], "--lr -1e-05: must be more than 0"),
        (["--preset", "tiny", "--lr", "nan"], "--lr nan: must be more than 0"),
        (["--preset", "tiny", "--temperature", "0"], "--temperature 0.0: must be more than 0"),
        (["--preset", "tiny", "--temperature", "inf"], "--temperature inf: must be more than 0"),
        (["--preset", "tiny", "--beta", "-1"], "--beta -1.0: must be at least 0"),
        (["--preset", "tiny", "--weight_decay", "nan"], "--weight_decay nan: must be at least 0"),
        (["--preset", "tiny", "--lora", "-8"], "--lora -8: must be at least 0"),
        (["--preset", "tiny", "--seed", "-1"], "--seed -1: must be at least 0"),
        (["--preset", "tiny", "--threads", "-2"], "--threads -2: must be at least 0"),
        (["--preset", "tiny", "--sample_every", "-1"], "--sample_every -1: must be at least 0"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grpo.main(flags) == UsageError.exit_code
    assert message in capsys.readouterr().err


def test_a_step_of_whole_forward_passes_alone(settings: argparse.Namespace) -> None:
    settings.micro_batch = 3
    with pytest.raises(UsageError, match="no multiple"):
        trl_config(settings, first=True)


# --- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solution": '[{"bbox_2d": [10, 10, 49, 49]}]'}, "row '1': .*no point_2d"),
        ({"solution": '[{"bbox_2d": [10, 10, 149, 49], "point_2d": [30, 30]}]'}, "row '1': .*leaves the frame"),
        ({"solution": ""}, "row '1': .*no JSON list"),
        ({"problem": " "}, "row '1': .*problem is empty"),
        ({"image": {"bytes": b"no picture", "path": None}}, "row '1': "),
        ({"image": None}, "row '1': it has no picture"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write_rows(tmp_path / "rows", **changes)
    with pytest.raises(DataError, match=message):
        [rows.at(i) for rows in table_rows(str(folder), None, 2, SIZE) for i in range(rows.n)]


@pytest.mark.parametrize("request_", ["the <|image_pad|> dog", "a dog<|IM_END|>"])
def test_a_request_with_a_control_token_is_named_before_anything_is_trained(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request_: str
) -> None:
    rows = write_rows(tmp_path / "rows", problem=request_)
    flags = [
        "--model_path",
        str(bundle),
        "--data",
        str(rows),
        "--output_dir",
        str(tmp_path / "run"),
        "--max_steps",
        "1",
    ]
    assert grpo.main(flags) == 3
    assert "row '1': the query contains the model's control token" in capsys.readouterr().err


def test_another_kind_of_checkpoint_is_one_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--preset", "tiny", "--model_path", str(bundle / "router"), "--output_dir", str(tmp_path / "run")]
    assert grpo.main(flags) == 4
    assert "is a 'qwen2' checkpoint, but a reasoner is" in capsys.readouterr().err


def test_a_requests_line_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"query": "the dog", "category": 1}\n{"query": "the dog", "category": 5}\n')
    with pytest.raises(DataError, match="line 2"):
        read_requests(file)
    file.write_text('{"query": "the dog", "category": [1]}\n')
    with pytest.raises(DataError, match="line 1"):
        read_requests(file)


# --- rows -------------------------------------------------------------------------------------------------------------
def test_rows_are_divided_and_none_is_both_trained_and_evaluated_on(tmp_path: Path) -> None:
    train_rows, held_out = table_rows(str(write_rows(tmp_path / "rows")), None, 2, SIZE)
    assert (train_rows.n, held_out.n) == (8, 2)
    ids = {rows.at(i)["id"] for rows in (train_rows, held_out) for i in range(rows.n)}
    assert len(ids) == 10


def test_rows_of_one_picture_stay_together(tmp_path: Path) -> None:
    images = [noise(90, 70, seed=i) for i in range(4)]
    rows = [make_row(f"{i % 4} {i}", "the dog", images[i % 4], [TARGET], SIDE) for i in range(12)]
    write_table(tmp_path / "rows", "train", columns_of("hub"), rows)
    train_rows, held_out = table_rows(str(tmp_path / "rows"), None, 2, SIZE)
    assert (train_rows.n, held_out.n) == (9, 3)
    assert len({held_out.at(i)["id"].split()[0] for i in range(3)}) == 1
    write_table(tmp_path / "one", "train", columns_of("hub"), [row | {"image": rows[0]["image"]} for row in rows])
    with pytest.raises(DataError, match="too few pictures"):
        table_rows(str(tmp_path / "one"), None, 2, SIZE)


def test_rows_of_another_frame_are_brought_to_the_models(tmp_path: Path) -> None:
    train_rows, _ = table_rows(str(write_rows(tmp_path / "rows")), None, 2, (2 * SIDE, 2 * SIDE))
    row = next(row for i in range(8) if (row := train_rows.at(i))["kind"] == "one")
    assert row["image"].size == (2 * SIDE, 2 * SIDE)
    assert json.loads(row["solution"]) == [{"bbox_2d": [20, 20, 99, 99], "point_2d": [61, 61]}]


def test_a_box_of_another_frame_keeps_its_edges_and_a_pixel_at_least(tmp_path: Path) -> None:
    """Edges 0, 101 and 1120, 559 to 560, of a frame of 560 in one of 280."""
    boxes = [(0, 0, 559, 559), (101, 0, 101, 559), (100, 100, 109, 109), (559, 559, 559, 559)]
    targets = [Target(Box.from_inclusive(*box), Point(*box[:2])) for box in boxes]
    made = [make_row(str(i), "the dog", noise(90, 70, seed=i), targets, 560) for i in range(10)]
    write_table(tmp_path / "rows", "train", columns_of("hub"), made)
    solution = table_rows(str(tmp_path / "rows"), None, 2, (280, 280))[0].at(0)["solution"]
    assert [found["bbox_2d"] for found in json.loads(solution)] == [
        [0, 0, 279, 279],
        [51, 0, 51, 279],
        [50, 50, 54, 54],
        [279, 279, 279, 279],
    ]
    assert [found["point_2d"] for found in json.loads(solution)] == [[0, 0], [50, 0], [50, 50], [279, 279]]


def test_a_row_that_names_the_side_of_its_frame_stays_in_another_frame(tmp_path: Path) -> None:
    target = Target(Box.from_inclusive(0, 0, 280, 280), Point(280, 280))
    made = [make_row(str(i), "the dog", noise(90, 70, seed=i), [target], 280) for i in range(10)]
    write_table(tmp_path / "rows", "train", columns_of("hub"), made)
    for side, last in ((280, 280), (560, 559), (140, 139)):
        row = table_rows(str(tmp_path / "rows"), None, 2, (side, side))[0].at(0)
        assert json.loads(row["solution"]) == [{"bbox_2d": [0, 0, last, last], "point_2d": [last, last]}]


def test_a_scenes_row_is_a_request_for_objects_and_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "cached_sprites", lambda _drawings: drawings.sprites())
    row, again, other = (scene_row(seed, 3, (280, 280), 0.3) for seed in (1, 1, 2))
    assert row["image"].size == (280, 280)
    assert not row["kind"].startswith("vqa")
    assert (row["problem"], row["solution"]) == (again["problem"], again["solution"])
    assert row["image"].tobytes() == again["image"].tobytes() != other["image"].tobytes()


def test_a_share_of_the_scenes_that_are_trained_on_has_the_supervised_stages_drawings_the_evaluated_ones_none(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(prepare, "cached_sprites", lambda split: asked.append(split) or drawings.sprites())  # type: ignore[func-returns-value]
    policy = load_policy(settings_for(bundle, tmp_path, "--rehearsed_share", 0.25, "--eval_n", 20))
    for number in range(40):
        policy.train.at(number)
    assert 4 <= asked.count("train") <= 16
    assert set(asked) == {"train", "rewarded"}
    asked.clear()
    for number in range(20):
        policy.held_out.at(number)
    assert set(asked) == {"rewarded"}


def test_a_row_is_made_once_for_all_its_rollouts() -> None:
    asked: list[int] = []
    table = as_dataset(Rows(10, lambda i: asked.append(i) or {"id": i, "image": noise(8, 8)}), 2)  # type: ignore[func-returns-value]
    assert [row["id"] for row in table.__getitems__([3, 3, 7, 7, 3])] == [3, 3, 7, 7, 3]
    assert asked == [3, 7]


# --- what the model sees ----------------------------------------------------------------------------------------------
def test_training_sees_what_inference_sees(settings: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(settings)
    row, image = trainer.policy.held_out.at(0), noise(90, 70, seed=5)
    seen: dict[str, Any] = {}

    def stop(_model: Any, _tokenizer: Any, batch: Any, *_: Any, **__: Any) -> Any:
        seen.update(batch)
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "decode_greedily", stop)
    asked = Reasoner(local.TransformersEngine(trainer.policy.model, trainer.policy.processing))
    with pytest.raises(KeyboardInterrupt):
        asked.ask([image], [row["problem"]], tasks=[Task.SEGMENTATION])
    framed = image.resize(SIZE, Image.Resampling.BILINEAR)
    prompt = prepare_multimodal_messages(row["prompt"], images=[framed])
    ids, _, fields = trainer._tokenize_prompts([prompt] * 2)
    assert ids == [seen["input_ids"][0].tolist()] * 2
    assert torch.equal(fields["pixel_values"], seen["pixel_values"])
    assert torch.equal(fields["image_grid_thw"], seen["image_grid_thw"])
    # what the likelihood is computed from
    batch = [row | {"image": framed}] * 2
    trainer.model.train()
    scored = trainer._generate_and_score_completions(batch)
    assert scored["prompt_ids"][0].tolist() == ids[0]
    assert torch.equal(scored["pixel_values"][: len(seen["pixel_values"])], seen["pixel_values"])


@pytest.mark.usefixtures("full_precision")
def test_sharing_the_prompt_changes_no_reply_no_likelihood_and_no_gradient(settings: argparse.Namespace) -> None:
    settings.batch_size = settings.micro_batch = 4
    settings.max_new_tokens = 12
    trainer = make_trainer(settings)
    batch = next(iter(trainer.get_train_dataloader()))
    assert len({row["problem"] for row in batch}) > 1, "prompts of different length are padded"
    prompts = [prepare_multimodal_messages(row["prompt"], images=[row["image"]]) for row in batch]
    trainer.generation_config.do_sample = trainer.generation_kwargs["do_sample"] = False
    trainer.temperature = 1e-6  # what is likeliest, too
    shared, _ = trainer._generate_single_turn(*trainer._tokenize_prompts(prompts), 2)
    trainer.eos_token_ids = trainer.generation_config.eos_token_id = [shared[2][4]]  # ends one group before the others
    shared, _ = trainer._generate_single_turn(*trainer._tokenize_prompts(prompts), 2)
    plain, _ = GRPOTrainer._generate_single_turn(trainer, *GRPOTrainer._tokenize_prompts(trainer, prompts), 2)
    assert shared == plain
    assert len({len(reply) for reply in shared}) > 1

    trainer.temperature = 1.0
    trainer.model.train()
    out = trainer._generate_and_score_completions(batch)
    # replies of different length, too
    for i, n in enumerate((3, 12, 7, 1, 12, 5, 9, 2)):
        out["completion_mask"][i, n:] = 0
    there = out["completion_mask"].bool()
    ids, mask = (torch.cat([out[f"prompt_{k}"], out[f"completion_{k}"]], dim=1) for k in ("ids", "mask"))
    names = ("pixel_values", "image_grid_thw", "mm_token_type_ids", "num_images")
    arguments = {name: out[name] for name in names} | {"compute_entropy": True, "batch_size": 4}

    def computed(method: Callable[..., Any]) -> list[torch.Tensor]:
        trainer.model.zero_grad()
        logps, entropies, _ = method(trainer, trainer.model, ids, mask, there.shape[1], **arguments)
        (logps[there].sum() + entropies[there].sum()).backward()
        grads = [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
        return [logps[there].detach(), entropies[there].detach(), *grads]

    ours = computed(Trainer._get_per_token_logps_and_entropies)
    theirs = computed(GRPOTrainer._get_per_token_logps_and_entropies)
    assert len(ours) == len(theirs) > 40
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3 * float(b.abs().max()) + 1e-6, rtol=0)


@pytest.mark.parametrize(("beta", "left_out"), [(0, True), (0.01, False)])
def test_only_rollouts_without_a_gradient_are_left_out(
    settings: argparse.Namespace, beta: float, left_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.beta = beta
    trainer = make_trainer(settings)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    out = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    asked: list[float] = []
    passed = Trainer._packed
    monkeypatch.setattr(Trainer, "_packed", lambda *args: asked.append(0) or passed(*args))  # type: ignore[func-returns-value]

    with torch.no_grad():
        next(trainer.model.parameters()).mul_(1.5)  # away from where it began
    out["advantages"] = torch.zeros_like(out["advantages"])
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, out)
    theirs.backward()
    grads = [float(p.grad.abs().max()) for p in trainer.model.parameters() if p.grad is not None]
    assert grads, "what is left out has been through the model"
    assert (max(grads) == 0) == left_out
    asked.clear()
    ours = trainer._compute_loss(trainer.model, out)
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert bool(asked) != left_out
    out["advantages"][0] = 1
    trainer._compute_loss(trainer.model, out)
    assert asked


def test_a_cache_with_room_holds_what_one_without_holds() -> None:
    torch.manual_seed(0)
    roomy, plain = PreallocatedLayer(), DynamicLayer()
    for step in range(40):
        rows = 3 if step < 25 else 2
        keys, values = torch.randn(2, rows, 2, 7 if step == 0 else 3, 4)
        if step == 25:  # one row's replies have ended
            for layer in (roomy, plain):
                layer.batch_select_indices(torch.tensor([0, 2]))
        for ours, theirs in zip(roomy.update(keys, values), plain.update(keys, values), strict=True):
            assert torch.equal(ours, theirs)
    assert roomy.get_seq_length() == plain.get_seq_length()


@pytest.mark.parametrize("frozen", ["vision", "language"])
def test_what_is_frozen_is_not_trained_and_all_the_rest_is(settings: argparse.Namespace, frozen: str) -> None:
    settings.freeze = frozen
    trained = {name: value.requires_grad for name, value in load_policy(settings).model.named_parameters()}
    assert all(trains == (("visual" in name) == (frozen == "language")) for name, trains in trained.items())
    assert len(set(trained.values())) == 2


def test_what_no_reply_consists_of_is_never_sampled(settings: argparse.Namespace) -> None:
    policy = load_policy(settings)
    ids = policy.processing.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>", "<|vision_start|>"])
    assert set(ids) <= set(policy.suppress_tokens)
    assert policy.processing.tokenizer.eos_token_id not in policy.suppress_tokens


def test_without_thinking_replies_are_answers_in_training_and_in_the_checkpoint(bundle: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows")
    trainer = make_trainer(settings_for(bundle, tmp_path, "--data", rows, "--without", "thinking", "non_repeat"))
    assert [reward.__name__ for reward in trainer.reward_funcs] == ["think_format", "answer_format", "accuracy"]
    assert trainer.reward_func_names == ["think_format", "answer_format", "accuracy"], "as TRL logs them"
    tokenizer = trainer.policy.processing.tokenizer
    allowed = answer_tokens(tokenizer, SIDE)
    reply = '<think></think><answer>[{"bbox_2d": [0,1,112,7], "point_2d": [3,99]}]</answer>'
    assert set(tokenizer(reply)["input_ids"]) < allowed
    assert not set(tokenizer("There are")["input_ids"]) <= allowed
    trainer.model.train()
    out = trainer._generate_and_score_completions([trainer.policy.train.at(0)] * 2)
    assert set(out["completion_ids"].flatten().tolist()) <= allowed | {tokenizer.pad_token_id}
    trainer.evaluate()
    loaded = Reasoner.from_pretrained(tmp_path / "run" / "reasoner", device="cpu")
    text = loaded.ask([noise(64, 64)], ["the dog"], tasks=[Task.DETECTION], max_new_tokens=20)[0].text
    assert set(tokenizer(text)["input_ids"]) <= allowed


# --- figures ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("boxes", "truth", "f1"),
    [
        ([], [], 1.0),
        ([], [[0, 0, 9, 9]], 0.0),
        ([[0, 0, 9, 9]], [], 0.0),
        ([[0, 0, 9, 9]], [[0, 0, 9, 9]], 1.0),
        ([[0, 0, 9, 9], [0, 0, 9, 9]], [[0, 0, 9, 9]], 2 / 3),
        ([[0, 0, 10, 5]], [[0, 0, 10, 10]], 1.0),
        ([[0, 0, 10, 4]], [[0, 0, 10, 10]], 0.0),
        # two pairs could be made, but the better pair goes first and leaves one without a partner
        ([[3, 0, 13, 10], [5, 0, 15, 10]], [[1, 0, 11, 10], [3, 0, 13, 10]], 1 / 2),
    ],
)
def test_f1_matches_boxes_as_evaluation_does(boxes: list[list[int]], truth: list[list[int]], f1: float) -> None:
    assert box_f1(boxes, truth) == pytest.approx(f1)


def test_a_perfect_reply_scores_everything_under_its_kind_too() -> None:
    solution = '[{"bbox_2d": [10, 10, 49, 49], "point_2d": [30, 30]}]'
    scores = reply_scores(
        f"<think>There.</think><answer>{solution}</answer>", {"solution": solution, "kind": "one"}, SIZE
    )
    assert scores["reward"] == 7
    assert (scores["f1"], scores["count"], scores["f1/one"], scores["rewards/accuracy"]) == (1, 1, 1, 3)


def test_no_answer_is_not_the_answer_that_there_is_nothing() -> None:
    row = {"solution": "[]", "kind": "none"}
    said = reply_scores("<think>No dog.</think><answer>[]</answer>", row, SIZE)
    assert (said["f1"], said["count"], said["reward"]) == (1, 1, 7)
    cut_off = '<think>A dog.</think><answer>[{"bbox_2d": [1, 2'
    broken = '<think>A dog.</think><answer>[{"bbox_2d": [1]}]</answer>'
    for text in ("no dog", cut_off, broken):
        scores = reply_scores(text, row, SIZE)
        assert (scores["f1"], scores["count"]) == (0, 0)


def test_the_best_checkpoint_is_the_one_that_is_kept(settings: argparse.Namespace) -> None:
    figures = iter([1.0, 3.0, 2.0])
    trainer = make_trainer(settings, score=lambda _: [{"reward": next(figures)}])
    trainer.policy = dataclasses.replace(trainer.policy, held_out=Rows(1, trainer.policy.held_out.at))
    folder = Path(settings.output_dir)
    weights = []
    for step in range(3):
        trainer.state.global_step = step
        with torch.no_grad():
            trainer.policy.model.lm_head.weight += 1
        trainer.evaluate()
        weights.append(load_file(folder / "reasoner" / "model.safetensors"))
    best = read_best(folder)
    assert best is not None
    assert (best["step"], best["eval_reward"]) == (1, 3.0)
    assert not all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert all(torch.equal(weights[1][k], weights[2][k]) for k in weights[1])


# --- runs -------------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("with_vowels")
def test_what_is_evaluated_and_kept_is_the_mean_of_the_weights(
    settings: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.average, settings.num_generations = 0.6, 4
    kept: list[dict[str, torch.Tensor]] = []

    def keep(policy: Policy, _folder: Path) -> None:
        kept.append({name: value.detach().clone() for name, value in policy.model.named_parameters()})

    monkeypatch.setattr(runs, "export", keep)
    monkeypatch.setattr(runs, "read_best", lambda _folder: None)  # keep every one
    train(settings)
    first, second = (
        {
            name: value.detach()
            for name, value in local.TransformersEngine.from_pretrained(
                tmp_path / "run" / f"checkpoint-{step}", "reasoner", device="cpu", dtype="float32"
            ).model.named_parameters()
        }
        for step in (1, 2)
    )
    begun, after_first, after_second = kept
    assert any(not torch.equal(begun[name], first[name]) for name in begun), "a step changed something"
    for name, start in begun.items():
        mean = (start + first[name]) / 2  # of all steps so far
        torch.testing.assert_close(after_first[name], mean, atol=1e-6, rtol=0)
        torch.testing.assert_close(after_second[name], 0.6 * mean + 0.4 * second[name], atol=1e-6, rtol=0)


@pytest.fixture
def with_vowels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models get nothing of the true rewards."""

    def load(settings: argparse.Namespace) -> Policy:
        return dataclasses.replace(load_policy(settings), rewards=[vowels])

    monkeypatch.setattr(trainer_module, "load_policy", load)


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint-2" / "model.safetensors")


@pytest.mark.usefixtures("with_vowels")
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    bundle: Path, tmp_path: Path, settings: argparse.Namespace
) -> None:
    settings.average = 0.5
    train(settings)
    whole = tmp_path / "run"
    settings.output_dir, settings.max_steps = str(tmp_path / "killed"), 1
    train(settings)
    killed = tmp_path / "killed"
    (killed / "checkpoint-2").mkdir()  # killed while it was written
    assert last_checkpoint(killed) == killed / "checkpoint-1"
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 2, "reward": 0}\n{"ste')
    settings.max_steps = 2
    train(settings)
    begun, expected, found = (
        load_file(killed / "checkpoint-1" / "model.safetensors"),
        *map(final_weights, (whole, killed)),
    )
    assert any(not torch.equal(begun[k], expected[k]) for k in expected), "the second step changed something"
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
    expected, found = (load_file(folder / "checkpoint-2" / EMA.FILE) for folder in (whole, killed))
    assert len(expected) > 40
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)

    steps = [json.loads(line) for line in (killed / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == [0, 1, 1, 2, 2]
    trained = steps[1]
    for name in ("reward", "rewards/vowels/mean", "kl", "entropy", "completions/mean_length", "frac_reward_zero_std"):
        assert isinstance(trained[name], float), name
    assert {"eval_reward", "eval_f1", "eval_count"} < set(steps[2])
    samples = [json.loads(line) for line in (killed / "samples.jsonl").read_text().splitlines()]
    assert {"step", "id", "problem", "solution", "reply", "rewards"} == set(samples[0])
    assert list(killed.glob("runs/*/events*")), "TensorBoard's"

    # what is done is not done again, nor written over
    assert train(settings) == killed
    assert len((killed / "log.jsonl").read_text().splitlines()) == len(steps)
    settings.lr = 0.5
    with pytest.raises(UsageError, match=r"holds a run with --lr 0\.001, now it is 0\.5"):
        train(settings)
    for checkpoint in killed.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    best = (killed / "best.json").read_text()
    if json.loads(best)["step"] == 0:
        (killed / "best.json").write_text(best.replace('"step": 0', '"step": 1'))
    with pytest.raises(UsageError, match="steps and no checkpoint to continue from"):
        train(settings)
    # what is left is a checkpoint as it came, but for the weights
    source, left = bundle / "reasoner", killed / "reasoner"
    for file in source.glob("*.json"):
        assert (left / file.name).read_text() == file.read_text()
    assert Reasoner.from_pretrained(left, device="cpu").engine.frame_side == SIDE
    assert choose(killed).router == str(killed / "router"), "a bundle, as it came"
    dtypes = [{k: v.dtype for k, v in load_file(f / "model.safetensors").items()} for f in (source, left)]
    assert dtypes[0] == dtypes[1]


@pytest.mark.slow
@pytest.mark.usefixtures("with_vowels")
def test_the_reward_rises(settings: argparse.Namespace) -> None:
    settings.max_steps = settings.eval_every = settings.save_every = 30
    settings.num_generations, settings.micro_batch, settings.beta = 8, 2, 0.0
    train(settings)
    lines = [json.loads(line) for line in (Path(settings.output_dir) / "log.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines if "reward" in line]
    assert sum(rewards[-10:]) > 1.5 * sum(rewards[:10])


@pytest.mark.usefixtures("with_vowels")
@pytest.mark.usefixtures("full_precision")
def test_adapters_leave_a_whole_checkpoint_and_go_on(bundle: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows")
    settings = settings_for(bundle, tmp_path, "--data", rows, "--lora", 4, "--max_steps", 1, "--lr", 0.1)
    train(settings)
    trainer = make_trainer(settings)
    trainer._load_from_checkpoint(str(tmp_path / "run" / "checkpoint-1"))
    runs.export(trainer.policy, tmp_path / "merged")
    merged = local.TransformersEngine.from_pretrained(tmp_path / "merged", "reasoner", device="cpu").model
    original = local.TransformersEngine.from_pretrained(bundle / "reasoner", "reasoner", device="cpu").model
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        adapted, whole, before = (m(input_ids=ids).logits for m in (trainer.policy.model.eval(), merged, original))
    torch.testing.assert_close(adapted, whole, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(whole, before, atol=1e-2), "the adapters do something"


def test_the_router_is_rewarded_for_the_right_category_and_trained_alike(bundle: Path, tmp_path: Path) -> None:
    said = [
        [{"role": "assistant", "content": text}] for text in ("#### 2", "#### segmentation", "2", "#### 2) Counting")
    ]
    assert right_category(said, [COUNTING, OBJECTS, COUNTING, OBJECTS], problem=[""] * 4) == [1, 1, 0, 0]
    assert router_row("7", "Count the dogs.", COUNTING)["prompt"][1]["content"].endswith("is: Count the dogs.")

    file = tmp_path / "requests.jsonl"
    file.write_text("".join(f'{{"query": "count the {n} dogs", "category": 2}}\n' for n in range(10)))
    folder = train(settings_for(bundle, tmp_path, "--what", "router", "--data", file, "--max_steps", 1))
    assert folder == tmp_path / "run"
    assert Router.from_pretrained(folder / "router", device="cpu").route("count the dogs").reply is not None
