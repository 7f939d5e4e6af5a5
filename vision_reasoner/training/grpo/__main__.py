"""Reinforcement learning of the reasoner or the router with perception rewards (GRPO).

The defaults are the published recipe of VisionReasoner-7B (arXiv 2505.12081); `--preset tiny` is for
VisionReasoner-Tiny and two cores.

A run leaves in --output_dir: `reasoner/` (or `router/`), the best checkpoint so far, which `--model_path` takes, beside
the other parts of the bundle that it came from, which make the folder a bundle, too; `best.json`, its figures;
`log.jsonl`, every step's and every evaluation's figures; `samples.jsonl`, some of the replies with their rewards;
`runs/`, the same for TensorBoard; `checkpoint-*`, from which the same command continues.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from vision_reasoner.cli import make_parser, require, run_command, silence_transformers
from vision_reasoner.errors import UsageError

EXAMPLES = """\
examples:
  python -m vision_reasoner.training.grpo --preset tiny
  python -m vision_reasoner.training.grpo --preset tiny --max_steps 50 --output_dir runs/short
  python -m vision_reasoner.training.grpo --preset tiny --data data/mine --output_dir runs/mine
  python -m vision_reasoner.training.grpo --preset tiny --without thinking --output_dir runs/without_thinking
  python -m vision_reasoner.training.grpo --preset tiny --what router --output_dir runs/router
  python -m vision_reasoner.training.grpo --model_path Qwen/Qwen2.5-VL-7B-Instruct --lora \\
      --data Ricky06662/VisionReasoner_multi_object_7k_840 --output_dir runs/7b
  torchrun --nproc_per_node 8 -m vision_reasoner.training.grpo --model_path Qwen/Qwen2.5-VL-7B-Instruct --lora \\
      --data data/rows --output_dir runs/7b
"""

PUBLISHED: dict[str, Any] = {
    # VisionReasoner-7B's recipe
    "batch_size": 16,
    "num_generations": 8,
    "lr": 1e-6,
    "beta": 0.01,
    "weight_decay": 0.01,
    "temperature": 1.0,
    "max_new_tokens": 2000,
    "epochs": 1.0,
    # not part of it
    "average": 0.0,
    "micro_batch": 1,
    "max_steps": -1,
    "eval_every": 25,
    "eval_n": 200,
    "save_every": 25,
}
# For VisionReasoner-Tiny; training/README.md reports the runs that these were found by.
TINY: dict[str, Any] = {
    "lr": 5e-5,  # with twice as much the held-out reward falls
    "beta": 0.0,  # short runs stay near the beginning, and no reference model has to be run
    "temperature": 0.7,  # nearer to greedy decoding, which is what is evaluated
    "average": 0.98,  # single steps are mostly noise
    "max_new_tokens": 224,
    "no_target_share": 0.3,  # with a tenth, the checkpoint unlearns to answer that nothing is there
    "rehearsed_share": 0.0,
    "max_steps": 200,
}
ROUTER: dict[str, Any] = {"max_new_tokens": 512}
TINY_ROUTER: dict[str, Any] = {"max_new_tokens": 16, "micro_batch": 16}  # its reply is "#### 1" and no more
LORA_LR = 10  # times the learning rate of full training: adapters begin at zero and need larger steps
LORA_RANK = 64


def build_parser() -> argparse.ArgumentParser:
    """The flags; those of `PUBLISHED` are None where they are not given."""
    parser = make_parser("python -m vision_reasoner.training.grpo", __doc__, epilog=EXAMPLES)
    _add_source_options(parser)
    _add_training_options(parser)
    _add_log_options(parser)
    return parser


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is trained, and on what").add_argument
    add("--preset", choices=("published", "tiny"), default="published", help="which defaults; default: %(default)s")
    add("--what", choices=("reasoner", "router"), default="reasoner", help="what to train; default: %(default)s")
    add("--model_path", metavar="PATH", help="where to begin: folder or Hub id; tiny: the bundled checkpoint")
    add(
        "--data",
        metavar="PATH",
        help="folder of vision_reasoner.training.prepare, or Hub id; tiny: new scenes without end; "
        "router: a file of JSON lines with query and category",
    )
    add("--eval_data", metavar="PATH", help='rows to evaluate on (split "test"); default: some of --data are left out')
    add(
        "--output_dir",
        default="runs/grpo",
        metavar="DIR",
        help="an earlier run there is continued; default: %(default)s",
    )
    share: dict[str, Any] = {"type": float, "metavar": "SHARE"}
    text = "of requests with nothing to find, in scenes (of --data it is decided by prepare)"
    add("--no_target_share", **share, help=_help("no_target_share", text))
    text = "of scenes with drawings of the supervised stages"
    add("--rehearsed_share", **share, help=_help("rehearsed_share", text))


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how it is trained").add_argument
    add("--max_steps", type=int, metavar="N", help=_defaults("max_steps") + "; -1: --epochs decides")
    add("--epochs", type=float, metavar="N", help=_help("epochs", "times that all rows are seen"))
    add("--batch_size", type=int, metavar="N", help=_help("batch_size", "prompts in a step"))
    add("--num_generations", type=int, metavar="N", help=_help("num_generations", "rollouts of each prompt"))
    text = "prompts that go through the model at once, with their rollouts"
    add("--micro_batch", type=int, metavar="N", help=_help("micro_batch", text))
    add("--lr", type=float, help=_help("lr", f"learning rate; {LORA_LR} times as much with --lora"))
    add("--beta", type=float, help=_help("beta", "weight of the KL divergence from the checkpoint at the beginning"))
    add("--weight_decay", type=float, help=_help("weight_decay", ""))
    add("--temperature", type=float, help=_help("temperature", "of rollouts"))
    text = "evaluate and keep the moving average of the weights, with this decay at each step; 0: none"
    add("--average", type=float, metavar="DECAY", help=_help("average", text))
    add("--max_new_tokens", type=int, metavar="N", help=_help("max_new_tokens", "limit of a reply"))
    add(
        "--lora",
        type=int,
        nargs="?",
        const=LORA_RANK,
        default=0,
        metavar="RANK",
        help=f"train adapters; default rank: {LORA_RANK}",
    )
    add("--freeze", choices=("vision", "language"), help="leave the vision tower or the language model as it is")
    add(
        "--without",
        nargs="+",
        choices=("thinking", "non_repeat"),
        default=[],
        help="thinking: answer at once; non_repeat: without that reward",
    )
    add("--seed", type=int, default=1, help="of rollouts, order and scenes; default: %(default)s")
    add("--threads", type=int, default=0, metavar="N", help="processor cores to use; default: all")


def _add_log_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("figures and checkpoints").add_argument
    add("--eval_every", type=int, metavar="STEPS", help=_help("eval_every", ""))
    add("--eval_n", type=int, metavar="N", help=_help("eval_n", "rows to evaluate on"))
    add("--save_every", type=int, metavar="STEPS", help=_help("save_every", "how much a killed run may lose"))
    add("--sample_every", type=int, default=5, metavar="STEPS", help="log some replies; 0: none; default: %(default)s")


def _defaults(name: str) -> str:
    presets = {"default": PUBLISHED, "tiny": TINY, "router": ROUTER, "tiny router": TINY_ROUTER}
    return ", ".join(f"{preset}: {values[name]}" for preset, values in presets.items() if name in values)


def _help(name: str, text: str) -> str:
    return f"{text}; {_defaults(name)}" if text else _defaults(name)


# --- which values are taken -------------------------------------------------------------------------------------------
Check = tuple[Callable[[Any], bool], str]
"""What must hold, and what is said where it does not. NaN fulfills none of those of a number."""

_POSITIVE: Check = (lambda value: 0 < value < math.inf, "must be more than 0")
_AT_LEAST_0: Check = (lambda value: 0 <= value < math.inf, "must be at least 0")
_AT_LEAST_1: Check = (lambda value: value >= 1, "must be at least 1")
_SHARE: Check = (lambda value: 0 <= value < 1, "must be at least 0 and less than 1")

RANGES: dict[str, Check] = {
    "num_generations": (lambda value: value >= 2, "rollouts are compared, so at least 2"),
    "max_steps": (lambda value: value == -1 or value >= 1, "must be at least 1, or -1 where --epochs decides"),
    **dict.fromkeys(("lr", "temperature", "epochs"), _POSITIVE),
    **dict.fromkeys(("beta", "weight_decay", "lora", "seed", "threads", "sample_every"), _AT_LEAST_0),
    **dict.fromkeys(("average", "no_target_share", "rehearsed_share"), _SHARE),
    **dict.fromkeys(("batch_size", "micro_batch", "max_new_tokens"), _AT_LEAST_1),
    **dict.fromkeys(("eval_every", "eval_n", "save_every"), _AT_LEAST_1),
}

CONFLICTS: tuple[Check, ...] = (
    (
        lambda s: s.preset == "tiny" or s.model_path is not None,
        "which checkpoint? give --model_path, or --preset tiny for the bundled one",
    ),
    (
        lambda s: s.preset == "tiny" or s.what == "router" or s.data is not None,
        "which rows? give --data, or --preset tiny for scenes",
    ),
    (
        lambda s: s.what == "reasoner" or not (s.without or s.freeze or s.eval_data),
        "--without, --freeze and --eval_data are not for a router",
    ),
    (
        lambda s: s.data or not s.eval_data,
        "--eval_data goes with --data; without it, scenes that are never trained on are evaluated",
    ),
    (
        lambda s: not (s.lora and s.freeze == "language"),
        "--lora adapts the language model, which --freeze language leaves as it is",
    ),
    (lambda s: s.data or s.max_steps >= 1, "there are requests without end: give --max_steps"),
)
SCENE_SETTINGS = ("no_target_share", "rehearsed_share")


def complete(settings: argparse.Namespace) -> argparse.Namespace:
    """The settings with the preset's values where none was given.

    Raises:
        UsageError: a value is out of its range, or settings exclude each other.
    """
    for name in SCENE_SETTINGS:
        if getattr(settings, name) is not None and (settings.data or settings.what == "router"):
            raise UsageError(f"--{name} is of scenes, which a reasoner is trained on where there is no --data")
    for name, value in _preset(settings).items():
        if getattr(settings, name) is None:
            setattr(settings, name, value)
    for name, (holds, message) in RANGES.items():
        value = getattr(settings, name)
        if value is not None and not holds(value):
            raise UsageError(f"--{name} {value}: {message}")
    for holds, message in CONFLICTS:
        if not holds(settings):
            raise UsageError(message)
    return settings


def _preset(settings: argparse.Namespace) -> dict[str, Any]:
    """The values that are taken where none is given."""
    values = dict(PUBLISHED)
    if settings.what == "router":
        values |= ROUTER
    if settings.preset == "tiny":
        values |= TINY | (TINY_ROUTER if settings.what == "router" else {})
    if settings.lora:
        values["lr"] *= LORA_LR
    if settings.epochs is not None:
        values["max_steps"] = -1
    return values


def run(settings: argparse.Namespace) -> int:
    """Train and say where the result is."""
    settings = complete(settings)
    require("train", "peft", "tensorboard", "trl")
    from vision_reasoner.training.grpo.trainer import train

    if not settings.verbose:
        silence_transformers()
    folder = train(settings)
    print(folder)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit codes as of the library's command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
