"""Supervised fine-tuning with TRL's SFTTrainer: prompt, frame and row checks as in GRPO, and only replies are learned.

VisionReasoner-Tiny has a trainer of its own (`tiny_trainer`). Importing this needs the extra `.[train]`.
"""

import argparse
from pathlib import Path

from trl import SFTConfig, SFTTrainer

from vision_reasoner.data.tables import Row
from vision_reasoner.errors import UsageError
from vision_reasoner.geometry import Size
from vision_reasoner.training.grpo.policies import Policy, Rows, load_reasoner
from vision_reasoner.training.runs import RunTrainer, accumulation_of, as_dataset, lora_config, run_config, train_run
from vision_reasoner.training.sft.replies import Thinking, reply_of

WARMUP_STEPS = 10
SHOWN = {"loss": "loss", "mean_token_accuracy": "tokens right", "grad_norm": "gradient"}


class Trainer(RunTrainer, SFTTrainer):
    """TRL's trainer for a reasoner."""

    best_by = "eval_f1"
    shown = SHOWN

    def __init__(self, policy: Policy, settings: argparse.Namespace, config: SFTConfig) -> None:
        self.begin_run(policy, settings)
        super().__init__(
            model=policy.model,
            args=config,
            train_dataset=as_dataset(imitated(policy.train, settings.thinking), settings.batch_size),
            eval_dataset=as_dataset(imitated(policy.held_out, settings.thinking), 0),
            processing_class=policy.processing,
            peft_config=lora_config(settings.lora),
        )
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise UsageError("models that are split between processes are not for this command; see training/clusters")
        self.watch_run()


def imitated(rows: Rows, thinking: Thinking) -> Rows:
    """Rows as TRL's SFTTrainer takes them."""

    def at(i: int) -> Row:
        row = rows.at(i)
        size: Size = row["image"].size
        reply = reply_of(row["problem"], row["solution"], model_size=size, thinking=thinking)
        return {
            "prompt": row["prompt"],
            "completion": [{"role": "assistant", "content": reply}],
            "image": row["image"],
        }

    return Rows(rows.n, at)


def sft_config(settings: argparse.Namespace, *, first: bool) -> SFTConfig:
    """TRL's settings: a step is `batch_size` rows.

    Args:
        settings: of the command line.
        first: whether the run begins; False where it is continued.
    """
    return SFTConfig(
        output_dir=settings.output_dir,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=accumulation_of(settings),
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        warmup_steps=WARMUP_STEPS,
        weight_decay=settings.weight_decay,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        max_length=None,  # a cut-off row would teach replies without an end
        completion_only_loss=True,
        remove_unused_columns=False,  # rows are made when they are asked for
        **run_config(settings, first=first),
    )


def train(settings: argparse.Namespace) -> Path:
    """Train as `settings` (see `sft.build_parser`) say; see `runs.train_run`."""

    def make(policy: Policy, *, first: bool) -> Trainer:
        return Trainer(policy, settings, sft_config(settings, first=first))

    return train_run(settings, load_reasoner, make, scheduled=True)
