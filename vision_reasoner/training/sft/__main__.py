"""Supervised fine-tuning of a reasoner on rows that `vision_reasoner.training.prepare` made.

It learns to answer with the boxes and points of the rows, in the prompt's grammar. GRPO alone teaches no new class: one
that is never found is never rewarded. Do GRPO afterwards. `--preset tiny` is for VisionReasoner-Tiny and two cores: its
vision tower and its language model learn new classes from annotated photographs, mixed with scenes.

A run leaves in --output_dir: `reasoner/`, the best checkpoint so far, which `--model_path` takes, beside the other
parts of the bundle that it came from, which make the folder a bundle, too; `best.json`, its figures; `log.jsonl`, every
step's and every evaluation's figures; `runs/`, the same for TensorBoard; `checkpoint-*`, from which the same command
continues.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from vision_reasoner.cli import make_parser, require, run_command, silence_transformers
from vision_reasoner.errors import UsageError
from vision_reasoner.training.grpo.__main__ import LORA_LR, LORA_RANK, RANGES, Check

EXAMPLES = """\
examples:
  python -m vision_reasoner.training.sft --preset tiny --data data/mine --output_dir runs/mine
  python -m vision_reasoner.training.sft --model_path Ricky06662/VisionReasoner-7B --lora --data data/mine \\
      --output_dir runs/mine7b
  torchrun --nproc_per_node 8 -m vision_reasoner.training.sft --model_path Ricky06662/VisionReasoner-7B --lora \\
      --data data/mine --output_dir runs/mine7b
"""

LARGE: dict[str, Any] = {
    "lr": 1e-5,
    "weight_decay": 0.01,
    "epochs": 2.0,
    "max_steps": -1,
    "batch_size": 16,
    "micro_batch": 1,
    "average": 0.0,
    "max_new_tokens": 2000,
    "eval_every": 50,
    "eval_n": 200,
    "save_every": 50,
}
# For VisionReasoner-Tiny; training/README.md reports the runs that these were found by.
TINY: dict[str, Any] = {
    "lr": 5e-4,
    "max_steps": 2100,
    "batch_size": 8,
    "micro_batch": 8,
    "average": 0.99,
    "max_new_tokens": 700,
    "eval_every": 250,
    "eval_n": 60,
    "save_every": 50,
    "rehearsed_share": 0.2,
}
EVALUATED_AT_ONCE = 16  # rows
TINY_ALONE = ("rehearsed_share", "flips")
LARGE_ALONE = ("weight_decay", "epochs")  # the tiny preset's optimizers have their own decay, its views no end
FLIPS = ("none", "horizontal", "both")


def build_parser() -> argparse.ArgumentParser:
    """The flags; those of `LARGE` are None where they are not given."""
    parser = make_parser("python -m vision_reasoner.training.sft", __doc__, epilog=EXAMPLES)
    add = parser.add_argument_group("what is trained, and on what").add_argument
    add("--preset", choices=("large", "tiny"), default="large", help="which defaults; default: %(default)s")
    add("--model_path", metavar="PATH", help="where to begin: folder or Hub id; tiny: the bundled checkpoint")
    add("--data", required=True, metavar="PATH", help="folder of vision_reasoner.training.prepare, or Hub id")
    add("--eval_data", metavar="PATH", help='rows to evaluate on (split "test"); default: some of --data are left out')
    text = "an earlier run there is continued; default: %(default)s"
    add("--output_dir", default="runs/sft", metavar="DIR", help=text)
    text = "list: name the place of each object first; none: answer at once; default: %(default)s"
    add("--thinking", choices=("list", "none"), default="list", help=text)
    share = "of the pictures of a step that are scenes, so that little is forgotten"
    add("--rehearsed_share", type=float, metavar="SHARE", help=_help("rehearsed_share", share))
    text = "how photographs are mirrored (tiny): both where up and down are alike, as under a microscope"
    add("--flips", choices=FLIPS, help=text + "; default: horizontal")
    _add_training_options(parser)
    return parser


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how it is trained").add_argument
    add("--max_steps", type=int, metavar="N", help=_help("max_steps", "-1: --epochs decides"))
    add(
        "--epochs",
        type=float,
        metavar="N",
        help=_help("epochs", "times that all rows are seen; not with --preset tiny"),
    )
    add("--batch_size", type=int, metavar="N", help=_help("batch_size", "rows in a step; tiny: photographs"))
    add("--micro_batch", type=int, metavar="N", help=_help("micro_batch", "those that go through the model at once"))
    add("--lr", type=float, help=_help("lr", f"learning rate at its peak; {LORA_LR} times as much with --lora"))
    add("--weight_decay", type=float, help=_help("weight_decay", "of AdamW; not with --preset tiny"))
    text = "evaluate and keep the moving average of the weights, with this decay at each step; 0: none"
    add("--average", type=float, metavar="DECAY", help=_help("average", text))
    text = f"train adapters; default rank: {LORA_RANK}"
    add("--lora", type=int, nargs="?", const=LORA_RANK, default=0, metavar="RANK", help=text)
    add("--freeze", choices=("vision", "language"), help="leave the vision tower or the language model as it is")
    add("--seed", type=int, default=1, help="of order, views and scenes; default: %(default)s")
    add("--threads", type=int, default=0, metavar="N", help="processor cores to use; default: all")
    add = parser.add_argument_group("figures and checkpoints").add_argument
    add("--max_new_tokens", type=int, metavar="N", help=_help("max_new_tokens", "limit of a reply in evaluation"))
    add("--eval_every", type=int, metavar="STEPS", help=_help("eval_every", "steps between evaluations"))
    add("--eval_n", type=int, metavar="N", help=_help("eval_n", "rows to evaluate on"))
    add("--save_every", type=int, metavar="STEPS", help=_help("save_every", "how much a killed run may lose"))


def _help(name: str, text: str) -> str:
    values = [f"{preset}: {v[name]}" for preset, v in {"default": LARGE, "tiny": TINY}.items() if name in v]
    return f"{text}; {', '.join(values)}"


CONFLICTS: tuple[Check, ...] = (
    (
        lambda s: s.preset == "tiny" or s.model_path is not None,
        "which checkpoint? give --model_path, or --preset tiny for the bundled one",
    ),
    (
        lambda s: s.preset == "tiny" or all(getattr(s, name) is None for name in TINY_ALONE),
        f"{' and '.join(f'--{name}' for name in TINY_ALONE)} go with --preset tiny",
    ),
    (
        lambda s: s.preset != "tiny" or all(getattr(s, name) is None for name in LARGE_ALONE),
        f"{' and '.join(f'--{name}' for name in LARGE_ALONE)} do not go with --preset tiny; it has --max_steps",
    ),
    (
        lambda s: s.preset != "tiny" or (s.thinking == "list" and not s.lora and s.freeze != "language"),
        "--preset tiny thinks in lists and has no adapters: --thinking none, --lora, --freeze language are for others",
    ),
    (
        lambda s: s.preset != "tiny" or s.max_steps >= 1,
        "--preset tiny makes views of photographs without end: give --max_steps",
    ),
    (
        lambda s: not (s.lora and s.freeze == "language"),
        "--lora adapts the language model, which --freeze language leaves as it is",
    ),
)


def complete(settings: argparse.Namespace) -> argparse.Namespace:
    """The settings with the preset's values where none was given, and those that GRPO's loading reads.

    Raises:
        UsageError: a value is out of its range, or settings exclude each other.
    """
    for holds, message in CONFLICTS[:3]:
        if not holds(settings):
            raise UsageError(message)
    values = LARGE | (TINY | {"flips": "horizontal"} if settings.preset == "tiny" else {})
    if settings.lora:
        values["lr"] *= LORA_LR
    if settings.epochs is not None:
        values["max_steps"] = -1
    for name, value in values.items():
        if getattr(settings, name) is None:
            setattr(settings, name, value)
    for name, (holds, message) in RANGES.items():
        value = getattr(settings, name, None)
        if value is not None and not holds(value):
            raise UsageError(f"--{name} {value}: {message}")
    for holds, message in CONFLICTS[3:]:
        if not holds(settings):
            raise UsageError(message)
    settings.without, settings.num_generations = [], max(1, EVALUATED_AT_ONCE // settings.micro_batch)
    return settings


def run(settings: argparse.Namespace) -> int:
    """Train and say where the result is."""
    settings = complete(settings)
    require("train", "peft", "tensorboard", "trl")
    if not settings.verbose:
        silence_transformers()
    if settings.preset == "tiny":
        from vision_reasoner.training.sft.tiny_trainer import train
    else:
        from vision_reasoner.training.sft.trainer import train
    print(train(settings))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit codes as of the library's command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
