"""What a run of any of the trainers has in common: figures of held-out rows, the best checkpoint, resuming.

A run leaves in its folder the best checkpoint so far as `--model_path` takes it, `best.json`, `log.jsonl`,
`settings.json` and `checkpoint-*`, from which the same command continues. Evaluation decodes greedily, as inference
does. What is evaluated and written can be the moving average of the weights, which averages out the noise of single
steps. No telemetry is sent, and no model card is written.

Importing this needs the extra `.[train]`.
"""

import argparse
import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PrinterCallback, Trainer, TrainerCallback

from vision_reasoner.errors import UsageError
from vision_reasoner.files import append_jsonl, atomic_folder, atomic_write, filter_jsonl
from vision_reasoner.models.checkpoints import CALIBRATION, RELEASED, is_bundle
from vision_reasoner.models.devices import denormals_flushed
from vision_reasoner.training.grpo.policies import Policy, Row, Rows
from vision_reasoner.training.tiny.loop import has_bfloat16

logger = logging.getLogger(__name__)

LORA_TARGETS = r"(?!.*visual).*\.(q|k|v|o|gate|up|down)_proj"  # the vision tower has some of the same names
LORA_ALPHA = 2  # times the rank: peft scales adapters by alpha / rank, which makes this factor the same for every rank
CHECKPOINTS_KEPT = 2  # the last one, and the one before in case that a kill comes while it is written
ADDED = "added_classes"  # in the config of VisionReasoner-Tiny, once it has learned new ones: their names, in order
# What a run that is continued may have changed; every other setting decides what is learned.
FREE_SETTINGS = {"max_steps", "sample_every", "threads", "verbose", "quiet", "output_dir"}


class EMA(TrainerCallback):
    """The exponential moving average of the weights that are trained.

    Early in a run it is the mean of all steps so far, so that the first weights do not dominate it. The step is torch's
    (`get_ema_multi_avg_fn`). torch's AveragedModel does not fit: it copies frozen weights too, and what is evaluated
    here is the model itself, with the averages exchanged for its weights.
    """

    FILE = "mean.safetensors"  # of a checkpoint

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.averages = {name: value.detach().clone() for name, value in self.weights.items()}
        self.decay = decay

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take the new weights in."""
        n = state.global_step + 1  # weights so far, the first ones included
        update = get_ema_multi_avg_fn(min(self.decay, 1 - 1 / n))
        update(list(self.averages.values()), [value.detach() for value in self.weights.values()], n)

    def swap(self) -> None:
        """Exchange the model's weights and the averages."""
        for name, value in self.weights.items():
            self.averages[name], value.data = value.data, self.averages[name]

    def save(self, folder: Path) -> None:
        """Write the averages into a checkpoint."""
        save_file(self.averages, folder / self.FILE)

    def load(self, folder: Path) -> None:
        """Read the averages of a checkpoint."""
        for name, value in load_file(folder / self.FILE).items():
            self.averages[name].copy_(value)


class RunTrainer(Trainer):
    """transformers' trainer, or put before one of TRL's; a subclass calls `begin_run` first and `watch_run` last.

    Attributes:
        best_by: the figure of held-out rows by which a checkpoint is the best.
        shown: what of a step's figures is shown, and how it is called.
    """

    best_by: str
    shown: dict[str, str]
    control: Any

    def begin_run(self, policy: Policy, settings: argparse.Namespace) -> None:
        """Keep what is trained, and how."""
        self.policy = policy
        self.settings = settings
        self.folder = Path(settings.output_dir)
        self.held_out: list[Row] = []  # this process's share, once it is needed

    def watch_run(self) -> None:
        """Take the callbacks that a run needs."""
        self.remove_callback(PrinterCallback)
        self.ema = EMA(self.policy.model, self.settings.average) if self.settings.average else None
        if self.ema is not None:
            self.add_callback(self.ema)

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As the Trainer's, with the moving average of the weights."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.ema is not None and self.is_world_process_zero():
            self.ema.save(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As the Trainer's, which skips most weights of a Qwen2.5-VL: their names in files are not those in memory."""
        if self.ema is not None:
            self.ema.load(Path(resume_from_checkpoint))
        if self.settings.lora:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        ours = self.policy.model
        saved = type(ours).from_pretrained(resume_from_checkpoint, dtype=ours.dtype, local_files_only=True)
        ours.load_state_dict(saved.state_dict())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's figures, also as a line of log.jsonl and a short one on standard error."""
        super().log(logs, start_time)  # may add figures to `logs`
        if not self.is_world_process_zero() or "train_runtime" in logs:
            return
        step = self.state.global_step
        figures = {k: v if v is None or math.isfinite(v) else None for k, v in logs.items()}
        with (self.folder / "log.jsonl").open("ab") as stream:
            append_jsonl(stream, [{"step": step, **figures}])
        logger.info("%s", one_line(step, figures, self.shown))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # noqa: ARG002 - whatever the Trainer gives
        """Greedy figures of the held-out rows; writes the checkpoint where its reward is the best so far."""
        index, processes = self.accelerator.process_index, self.accelerator.num_processes
        self.held_out = self.held_out or [
            self.policy.held_out.at(i) for i in range(index, self.policy.held_out.n, processes)
        ]
        was_training = self.model.training
        self.model.eval()
        if self.ema is not None:
            self.ema.swap()
        mine = self.policy.score(self.held_out)
        scores: list[dict[str, float]] = gather_object(mine)
        names = dict.fromkeys(name for score in scores for name in score)
        values = {name: [score[name] for score in scores if name in score] for name in names}
        metrics = {f"eval_{name}": sum(found) / len(found) for name, found in sorted(values.items())}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.is_world_process_zero():
            best = read_best(self.folder)
            result = self.folder / self.policy.part
            if best is None or metrics[self.best_by] > best[self.best_by] or not result.is_dir():
                export(self.policy, result)
                record = {"step": self.state.global_step, **metrics}
                atomic_write(self.folder / "best.json", lambda path: path.write_text(json.dumps(record, indent=1)))
        self.accelerator.wait_for_everyone()
        if self.ema is not None:
            self.ema.swap()
        self.model.train(was_training)
        return metrics


def lora_config(rank: int) -> LoraConfig | None:
    """Adapters of the language model; None for rank 0."""
    return LoraConfig(r=rank, lora_alpha=LORA_ALPHA * rank, target_modules=LORA_TARGETS) if rank else None


def accumulation_of(settings: argparse.Namespace) -> int:
    """How many micro batches of each process make a step.

    Raises:
        UsageError: they do not come out even.
    """
    at_once: int = settings.micro_batch * int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun and accelerate say it
    if settings.batch_size % at_once:
        raise UsageError(f"--batch_size {settings.batch_size} is no multiple of --micro_batch x processes = {at_once}")
    return int(settings.batch_size // at_once)


def run_config(settings: argparse.Namespace, *, first: bool) -> dict[str, Any]:
    """The part of a Trainer's settings that is the same for all.

    Args:
        settings: of the command line.
        first: whether the run begins; False where it is continued.
    """
    on_gpu = torch.cuda.is_available()
    return {
        "use_cpu": not on_gpu,
        "bf16": on_gpu or has_bfloat16(),
        "gradient_checkpointing": on_gpu,
        "eval_strategy": "steps",
        "eval_steps": settings.eval_every,
        "eval_on_start": first,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "save_total_limit": CHECKPOINTS_KEPT,
        "logging_steps": 1,
        "report_to": ["tensorboard"],
        "disable_tqdm": True,
        "seed": settings.seed,
        "dataloader_pin_memory": on_gpu,
    }


def as_dataset(rows: Rows, remembered: int) -> datasets.Dataset:
    """Rows as TRL takes them; the Trainer reads each once for every rollout, so the last ones are remembered."""
    at = lru_cache(maxsize=remembered)(rows.at)

    def columns(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        found = [at(i) for i in batch["index"]]
        return {name: [row[name] for row in found] for name in found[0]}

    return datasets.Dataset.from_dict({"index": range(rows.n)}).with_transform(columns)


def one_line(step: int, figures: dict[str, float | None], trained: dict[str, str]) -> str:
    """The figures to watch, in one line.

    Args:
        step: of the run.
        figures: of a step or of an evaluation.
        trained: what of a step's figures is shown, and how it is called.
    """
    if "eval_reward" in figures:
        shown = {name: name.removeprefix("eval_") for name in figures if name.startswith("eval_") and "/" not in name}
        head = f"step {step}, held out:"
    else:
        shown = trained
        head = f"step {step}:"
    return f"{head} " + ", ".join(
        f"{text} {figures[name]:.3g}" for name, text in shown.items() if figures.get(name) is not None
    )


# --- the exported checkpoint ------------------------------------------------------------------------------------------
def export(policy: Policy, folder: Path) -> None:
    """Write the checkpoint, adapters merged, with the dtype and the other files of the one that training began with.

    Its calibration is left out: it is of other weights.
    """
    with atomic_folder(folder) as scratch:
        policy.model.save_pretrained(scratch, state_dict=weights_of(policy))
        for file in policy.folder.iterdir():
            of_weights = file.name == CALIBRATION or file.name.endswith(".index.json")
            if file.suffix in (".json", ".jinja", ".txt") and not of_weights:
                shutil.copy(file, scratch)
        added = getattr(policy.model.config, ADDED, None)
        if added:  # names became words
            config = json.loads((scratch / "config.json").read_text())
            config["text_config"]["vocab_size"] = policy.model.config.get_text_config().vocab_size
            (scratch / "config.json").write_text(json.dumps(config | {ADDED: added}, indent=2))
            policy.processing.tokenizer.save_pretrained(scratch)
        if policy.skips_thinking:
            generation = scratch / "generation_config.json"
            asked = json.loads(generation.read_text()) | {"suppress_tokens": policy.suppress_tokens}
            generation.write_text(json.dumps(asked))


def weights_of(policy: Policy) -> dict[str, Tensor]:
    """The model's weights by name, as in its checkpoint."""
    with safe_open(next(policy.folder.glob("*.safetensors")), "pt") as stored:
        dtype = stored.get_tensor(next(iter(stored.keys()))).dtype
    added = {
        f"{name}.base_layer.weight": module.get_delta_weight("default")
        for name, module in policy.model.named_modules()
        if isinstance(module, LoraLayer)
    }
    return {
        name.replace(".base_layer", ""): (value + added[name] if name in added else value).to(dtype)
        for name, value in policy.model.state_dict().items()
        if ".lora_" not in name
    }


def read_best(folder: Path) -> dict[str, float] | None:
    """The figures of the checkpoint that was written, None where there is none."""
    file = folder / "best.json"
    return json.loads(file.read_text()) if file.is_file() else None


# --- a run ------------------------------------------------------------------------------------------------------------
def train_run(
    settings: argparse.Namespace,
    load: Callable[[argparse.Namespace], Policy],
    make: Callable[..., Any],
    *,
    scheduled: bool = False,
) -> Path:
    """Train as `settings` say, from the run's last checkpoint if there is one.

    Args:
        settings: of the command line.
        load: loads the model, rows and scores.
        make: gives the trainer for them; with `first`, whether the run begins.
        scheduled: whether --max_steps decides what is learned at each step, so that a run keeps to its own.

    Returns:
        The best checkpoint: the bundle that it is part of, if it began as part of one, or its folder.

    Raises:
        VisionReasonerError: something cannot be used; the message says what.
    """
    folder = Path(settings.output_dir)
    last = last_checkpoint(folder)
    step = 0 if last is None else int(last.name.rpartition("-")[2])
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    policy = load(settings)
    if policy.train.n < settings.batch_size:
        raise UsageError(f"{policy.train.n} rows to train on, and a step takes {settings.batch_size}: --batch_size")
    bundle = policy.folder.parent if is_bundle(policy.folder.parent) else None
    result = folder / policy.part if bundle is None else folder
    if os.environ.get("RANK", "0") == "0":
        check_settings(settings, folder, policy.train.n, continued=last is not None, scheduled=scheduled)
        for log in ("log.jsonl", "samples.jsonl"):
            filter_jsonl(folder / log, lambda line: last is not None and line["step"] <= step)
        if bundle is not None:  # what is left is one, too
            for part in RELEASED.keys() - {policy.part}:
                shutil.copytree(bundle / part, folder / part, dirs_exist_ok=True)
    if 0 < settings.max_steps <= step:
        more = "begin another run with its result" if scheduled else "a higher --max_steps continues it"
        logger.info("%s has %d steps already; %s", folder, step, more)
        return result
    trainer = make(policy, first=last is None)
    if last is not None:
        logger.info("continuing from %s", last)
    with denormals_flushed():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    return result


def check_settings(
    settings: argparse.Namespace, folder: Path, n_rows: int, *, continued: bool, scheduled: bool = False
) -> None:
    """Write a new run's settings into its folder, or compare a continued run's with those written when it began.

    Raises:
        UsageError: the folder holds a run with other settings, or a result without a checkpoint to continue from.
    """
    file = folder / "settings.json"
    free = FREE_SETTINGS - {"max_steps"} if scheduled else FREE_SETTINGS
    now = {f"--{name}": value for name, value in sorted(vars(settings).items()) if name not in free}
    now["rows to train on:"] = n_rows
    if continued and file.is_file():
        before = json.loads(file.read_text())
        for name in now:
            if before.get(name) != now[name]:
                raise UsageError(
                    f"{folder}: holds a run with {name} {before.get(name)}, now it is {now[name]}; "
                    "give another --output_dir"
                )
        return
    if not continued:
        best = read_best(folder)
        if best is not None and best["step"] > 0:
            raise UsageError(
                f"{folder}: holds the result of {best['step']} steps and no checkpoint to continue from; "
                "give another --output_dir, or delete it"
            )
        (folder / "best.json").unlink(missing_ok=True)
    atomic_write(file, lambda path: path.write_text(json.dumps(now, indent=1)))


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a run that is complete, None where there is none."""
    found = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]  # written last
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
