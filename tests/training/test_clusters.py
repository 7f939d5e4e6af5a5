"""Training on clusters: adapters as the engines load them, the published recipe in both, veRL's own code on ours."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import noise
from vision_reasoner.errors import DataError
from vision_reasoner.results import Task
from vision_reasoner.training.clusters import easyr1_reward, verl_reward
from vision_reasoner.training.grpo.rewards import compute_reward

ROOT = Path(__file__).resolve().parents[2]
CLUSTERS = ROOT / "vision_reasoner/training/clusters"
VERL = Path(os.environ.get("CLUSTER_ENV", ROOT / ".venv/verl")) / "bin/python"

SOLUTION = json.dumps([{"bbox_2d": [10, 10, 60, 60], "point_2d": [30, 30]}])
PERFECT = f"<think>There it is.</think><answer>{SOLUTION}</answer>"
# 5 pixels off: in a frame of 840 that is near enough for box and point, in one of 280 for the point only
NEAR = PERFECT.replace("[10, 10, 60, 60]", "[15, 15, 65, 65]")
REPLIES = [PERFECT, NEAR, "", "no idea", "<think>a</think><answer>[]</answer>", "<think>a</think><answer>[{}]</answer>"]


def loaded(path: Path) -> Any:
    """A module by its file alone, as both engines import it."""
    spec = importlib.util.spec_from_file_location("custom_reward_fn", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_verl_gets_the_total_and_every_part():
    compute_score = loaded(CLUSTERS / "verl_reward.py").compute_score
    for reply in REPLIES:
        score = compute_score(data_source="d", solution_str=reply, ground_truth=SOLUTION, extra_info={"index": 1})
        reward = compute_reward(reply, SOLUTION)
        assert score == {"score": reward.total, **reward._asdict()}
        assert list(score) == ["score", "think_format", "answer_format", "accuracy", "non_repeat"]
        assert all(type(value) is float for value in score.values())


def test_verl_may_pass_what_we_do_not_know():
    compute_score = verl_reward.compute_score
    assert compute_score("d", PERFECT, SOLUTION, None, reward_router_address="x", another=1)["score"] == 7


def test_verl_takes_the_frame_from_the_row():
    compute_score = verl_reward.compute_score
    assert compute_score("d", NEAR, SOLUTION, {"frame_side": 840})["accuracy"] == 3
    assert compute_score("d", NEAR, SOLUTION, {"frame_side": 280})["accuracy"] == 2


def test_easyr1_gets_a_batch_of_totals_and_parts():
    module = loaded(CLUSTERS / "easyr1_reward.py")
    assert (module.REWARD_NAME, module.REWARD_TYPE) == ("vision_reasoner", "batch")
    rows = [{"response": reply, "response_length": 9, "ground_truth": SOLUTION} for reply in REPLIES]
    rewards = [compute_reward(reply, SOLUTION) for reply in REPLIES]
    assert module.compute_score(rows) == [{"overall": reward.total, **reward._asdict()} for reward in rewards]
    assert module.compute_score([]) == []


def test_easyr1_takes_the_frame_from_its_settings():
    rows = [{"response": NEAR, "ground_truth": SOLUTION}]
    assert easyr1_reward.compute_score(rows)[0]["accuracy"] == 3
    assert easyr1_reward.compute_score(rows, frame_side=280)[0]["accuracy"] == 2


def test_both_may_count_empty_truths_as_the_original_does():
    reply = "<think>a</think><answer>[]</answer>"
    assert verl_reward.compute_score("d", reply, "[]", compat="upstream")["score"] == 2
    assert (
        easyr1_reward.compute_score([{"response": reply, "ground_truth": "[]"}], compat="upstream")[0]["overall"] == 2
    )


def test_a_bad_solution_stops_the_run():
    with pytest.raises(DataError, match="no JSON list"):
        verl_reward.compute_score("d", PERFECT, "")


# what is published: where veRL has it, where EasyR1 has it
RECIPE = {
    "model": ("Qwen/Qwen2.5-VL-7B-Instruct", "actor_rollout_ref.model.path", "worker.actor.model.model_path"),
    "estimator": ("grpo", "algorithm.adv_estimator", "algorithm.adv_estimator"),
    "rollouts": (8, "actor_rollout_ref.rollout.n", "worker.rollout.n"),
    "prompts a step": (16, "data.train_batch_size", "data.rollout_batch_size"),
    "prompts an update": (16, "actor_rollout_ref.actor.ppo_mini_batch_size", "worker.actor.global_batch_size"),
    "learning rate": (1e-6, "actor_rollout_ref.actor.optim.lr", "worker.actor.optim.lr"),
    "weight decay": (0.01, "actor_rollout_ref.actor.optim.weight_decay", "worker.actor.optim.weight_decay"),
    "KL as a loss": (True, "actor_rollout_ref.actor.use_kl_loss", "algorithm.use_kl_loss"),
    "KL coefficient": (0.01, "actor_rollout_ref.actor.kl_loss_coef", "algorithm.kl_coef"),
    "KL estimator": ("low_var_kl", "actor_rollout_ref.actor.kl_loss_type", "algorithm.kl_penalty"),
    "clipping, low": (0.2, "actor_rollout_ref.actor.clip_ratio_low", "worker.actor.clip_ratio_low"),
    "clipping, high": (0.2, "actor_rollout_ref.actor.clip_ratio_high", "worker.actor.clip_ratio_high"),
    "temperature": (1.0, "actor_rollout_ref.rollout.temperature", "worker.rollout.temperature"),
    "reply length": (2000, "data.max_response_length", "data.max_response_length"),
    "epochs": (1, "trainer.total_epochs", "trainer.total_epochs"),
    "machines": (1, "trainer.nnodes", "trainer.nnodes"),
    "GPUs": (8, "trainer.n_gpus_per_node", "trainer.n_gpus_per_node"),
}


@pytest.mark.parametrize("what", RECIPE)
def test_both_engines_follow_the_published_recipe(what):
    value, in_verl, in_easyr1 = RECIPE[what]
    assert OmegaConf.select(OmegaConf.load(CLUSTERS / "verl.yaml"), in_verl) == value
    assert OmegaConf.select(OmegaConf.load(CLUSTERS / "easyr1.yaml"), in_easyr1) == value


def test_what_the_exporters_write_is_what_the_configurations_read():
    from vision_reasoner.data.rows import columns_of

    data = OmegaConf.load(CLUSTERS / "easyr1.yaml").data
    assert {data.prompt_key, data.answer_key, data.image_key} <= columns_of("easyr1").keys()
    assert {"data_source", "prompt", "images", "reward_model", "extra_info"} <= columns_of("verl").keys()


def cluster(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", str(CLUSTERS / "cluster.sh"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fake_environment(folder: Path) -> Path:
    """One whose Python prints its arguments, one a line."""
    python = folder / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "arguments", [(), ("verl",), ("trl", "train", "a", "b"), ("verl", "fly"), ("easyr1", "setup", "--check")]
)
def test_the_script_says_how_it_is_used(arguments, tmp_path):
    result = cluster(*arguments, CLUSTER_ENV=str(fake_environment(tmp_path)))
    assert result.returncode == 2
    assert "cluster.sh ENGINE train TRAIN VAL" in result.stderr


def test_the_script_names_the_step_that_is_missing(tmp_path):
    result = cluster("verl", "merge", "a", "b", CLUSTER_ENV=str(tmp_path / "nowhere"))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "verl setup` first" in result.stderr
    environment = str(fake_environment(tmp_path))
    result = cluster("verl", "train", str(tmp_path / "nothing"), str(tmp_path), CLUSTER_ENV=environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert "no parquet file in" in result.stderr


def test_the_script_mixes_no_splits(tmp_path):
    for name in ("train-00000-of-00001.parquet", "val-00000-of-00001.parquet"):
        (tmp_path / name).touch()
    environment = str(fake_environment(tmp_path / "environment"))
    result = cluster("verl", "train", str(tmp_path), str(tmp_path), CLUSTER_ENV=environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert "more than one split" in result.stderr


def test_the_script_hands_veRL_every_table_of_a_folder(tmp_path):  # noqa: N802
    data = tmp_path / "my data"
    data.mkdir()
    for name in ("train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "README.md"):
        (data / name).touch()
    result = cluster(
        "verl", "train", str(data), str(data / "train-00000-of-00002.parquet"), "trainer.nnodes=4",
        CLUSTER_ENV=str(fake_environment(tmp_path)),
    )  # fmt: skip
    lines = result.stdout.splitlines()
    tables = [f"{data}/train-0000{i}-of-00002.parquet" for i in (0, 1)]
    assert lines[:2] == ["-m", "verl.trainer.main_ppo"]
    assert f"data.train_files=['{tables[0]}','{tables[1]}']" in lines
    assert f"data.val_files=['{tables[0]}']" in lines
    assert lines[-1] == "trainer.nnodes=4"


# --- with veRL itself, in the environment that `cluster.sh verl setup` makes ---
needs_verl = pytest.mark.skipif(not VERL.is_file(), reason="needs `cluster.sh verl setup --check`")


def in_verl(code: str, *arguments: object) -> Any:
    """What Python code prints last, as JSON, in veRL's environment."""
    result = subprocess.run(
        [VERL, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


COMPOSE = """
import json, sys
from hydra import compose, initialize_config_dir
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config
clusters, *overrides = sys.argv[1:]
files = ["data.train_files=[a.parquet]", "data.val_files=[b.parquet]"]
with initialize_config_dir(clusters, version_base=None):
    config = compose("verl", overrides=["trainer.default_local_dir=runs", *files, *overrides])
validate_config(config, need_reference_policy(config), need_critic(config))
"""

SCORE = """
import asyncio, numpy, torch
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager
class Tokenizer:
    def decode(self, ids, skip_special_tokens):
        return bytes(ids.tolist()).decode()
async def score(reply, solution, side):
    manager = load_reward_manager(config, Tokenizer())
    ids = torch.tensor([list(reply.encode())])
    row = {"data_source": "d", "reward_model": {"ground_truth": solution}, "extra_info": {"frame_side": side}}
    columns = {key: numpy.array([value], dtype=object) for key, value in row.items()}
    tensors = {"prompts": ids[:, :0], "responses": ids, "attention_mask": torch.ones_like(ids)}
    return await manager.run_single(DataProto.from_dict(tensors=tensors, non_tensors=columns))
def scores(rows):
    return [asyncio.run(score(*row)) for row in rows]
"""


@pytest.mark.slow
@needs_verl
@pytest.mark.parametrize("machines", [1, 4])
def test_verl_composes_and_validates_the_configuration(machines):
    code = """
rollout, actor = (omega_conf_to_dataclass(config.actor_rollout_ref[part]) for part in ("rollout", "actor"))
print(json.dumps([rollout.n, rollout.response_length, actor.optim.lr, actor.optim.lr_scheduler_type,
                  actor.kl_loss_coef, actor.kl_loss_type, config.data.train_batch_size, config.trainer.nnodes,
                  config.reward.reward_manager.name, need_reference_policy(config), need_critic(config)]))"""
    assert in_verl(COMPOSE + code, CLUSTERS, f"trainer.nnodes={machines}") == [
        8, 2000, 1e-6, "constant", 0.01, "low_var_kl", 16, machines, "naive", True, False,
    ]  # fmt: skip


@pytest.mark.slow
@needs_verl
@pytest.mark.parametrize("override", [None, f"reward.custom_reward_function.path={CLUSTERS / 'verl_reward.py'}"])
def test_verl_loads_the_adapter_and_scores_with_it(override):
    rows = [(PERFECT, SOLUTION, 840), (NEAR, SOLUTION, 280), ("no", SOLUTION, 840)]
    code = COMPOSE + SCORE + f"print(json.dumps(scores({rows!r})))"
    results = in_verl(code, CLUSTERS, *([override] if override else []))
    assert [result["reward_score"] for result in results] == [7, 6, 1]
    assert results[1]["reward_extra_info"] == {
        "score": 6, "think_format": 1, "answer_format": 2, "accuracy": 2, "non_repeat": 1,
    }  # fmt: skip


@pytest.mark.slow
@needs_verl
def test_verl_reads_the_exported_rows(tmp_path, bundle):
    from vision_reasoner.data.rows import LAYOUTS, columns_of, make_row
    from vision_reasoner.data.tables import write_table

    row = make_row("a", "The Dog.", noise(90, 60), [], 840) | {"solution": SOLUTION}
    write_table(tmp_path / "data", "train", columns_of("verl"), [LAYOUTS["verl"](row, 0, "train")])
    [table] = (tmp_path / "data").glob("*.parquet")
    code = f"""
from transformers import AutoProcessor
from verl.utils.dataset.rl_dataset import RLHFDataset
processor = AutoProcessor.from_pretrained({str(bundle / "reasoner")!r})
row = RLHFDataset([{str(table)!r}], processor.tokenizer, config.data, processor)[0]
picture, text = row["raw_prompt"][0]["content"]
[score] = scores([({PERFECT!r}, row["reward_model"]["ground_truth"], row["extra_info"]["frame_side"])])
print(json.dumps([picture["image"].size, text["text"], score["reward_score"]]))"""
    size, text, score = in_verl(COMPOSE + SCORE + code, CLUSTERS, "data.filter_overlong_prompts=false")
    assert size == [840, 840]
    assert text.startswith('Please find "the dog" with bboxs and points.')
    assert score == 7


@pytest.mark.slow
@needs_verl
def test_the_merged_checkpoint_is_one_of_ours(tmp_path, bundle):
    import torch

    from vision_reasoner.models.local import TransformersEngine
    from vision_reasoner.models.reasoner import Reasoner

    actor, merged = tmp_path / "global_step_1/actor", tmp_path / "merged"
    shutil.copytree(bundle / "reasoner", actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    in_verl(
        """
import json, pathlib, sys, torch
from transformers import AutoModelForImageTextToText
reasoner, actor = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(reasoner, dtype=torch.float32)
torch.save(model.state_dict(), actor + "/model_world_size_1_rank_0.pt")
pathlib.Path(actor, "fsdp_config.json").write_text('{"FSDP_version": 1, "world_size": 1}')
print("null")""",
        bundle / "reasoner",
        actor,
    )
    result = cluster("verl", "merge", str(actor.parent), str(merged), CLUSTER_ENV=str(VERL.parent.parent))
    assert result.returncode == 0, result.stderr[-3000:]

    before, after = (
        TransformersEngine.from_pretrained(folder, "reasoner", device="cpu", dtype="float32")
        for folder in (bundle / "reasoner", merged)
    )
    assert after.frame_side == before.frame_side
    weights = before.model.state_dict()
    for name, weight in after.model.state_dict().items():
        assert torch.equal(weight, weights[name].bfloat16().float()), name
    [reply] = Reasoner(after).ask([noise(90, 60)], ["dog"], tasks=[Task.DETECTION], max_new_tokens=2)
    assert reply.n_tokens > 0


def test_the_adapters_need_neither_torch_nor_transformers():
    code = "import sys, vision_reasoner.training.clusters.verl_reward; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
