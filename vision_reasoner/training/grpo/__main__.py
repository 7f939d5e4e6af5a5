"""Reinforcement learning with perception rewards: GRPO, which makes a checkpoint better at what it is rewarded for.

The command line; `policies` has what is trained, `trainer` how. The defaults are the published recipe of
VisionReasoner-7B (arXiv 2505.12081); `--preset tiny` is for VisionReasoner-Tiny and two cores.

A run leaves in --output_dir: `reasoner/` (or `router/`), the best checkpoint so far, which `--model_path` takes, beside
the other parts of the bundle that it came from, which make the folder a bundle, too; `best.json`, its figures;
`log.jsonl`, every step's and every evaluation's figures; `samples.jsonl`, some of the replies with their rewards;
`runs/`, the same for TensorBoard; `checkpoint-*`, from which the same command goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from vision_reasoner.cli import make_parser, run_command, silence_transformers
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
    "batch_size": 16,
    "num_generations": 8,
    "micro_batch": 1,
    "lr": 1e-6,
    "beta": 0.01,
    "weight_decay": 0.01,
    "temperature": 1.0,
    "average": 0.0,
    "max_new_tokens": 2000,
    "epochs": 1.0,
    "max_steps": -1,
    "eval_every": 25,
    "eval_n": 200,
    "save_every": 25,
}
TINY: dict[str, Any] = {
    "lr": 5e-5,
    "beta": 0.0,
    "temperature": 0.7,
    "average": 0.98,
    "max_new_tokens": 224,
    "no_target_share": 0.3,
    "rehearsed_share": 0.0,
    "max_steps": 200,
}
ROUTER: dict[str, Any] = {"max_new_tokens": 512}
TINY_ROUTER: dict[str, Any] = {"max_new_tokens": 16, "micro_batch": 16}
LORA_LR = 10  # adapters want larger steps than the weights themselves


def build_parser() -> argparse.ArgumentParser:
    """The flags; those of `PUBLISHED` are None where they are not given."""
    parser = make_parser("python -m vision_reasoner.training.grpo", __doc__, epilog=EXAMPLES)
    add = parser.add_argument
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
    add("--max_steps", type=int, metavar="N", help=_defaults("max_steps") + "; -1: --epochs decides")
    add("--epochs", type=float, metavar="N", help=_help("epochs", "times that all rows are seen"))
    add("--batch_size", type=int, metavar="N", help=_help("batch_size", "prompts in a step"))
    add("--num_generations", type=int, metavar="N", help=_help("num_generations", "rollouts of each prompt"))
    add(
        "--micro_batch",
        type=int,
        metavar="N",
        help=_help("micro_batch", "prompts that go through the model at once, with their rollouts"),
    )
    add("--lr", type=float, help=_help("lr", f"learning rate; {LORA_LR} times as much with --lora"))
    add("--beta", type=float, help=_help("beta", "weight of the KL divergence from the checkpoint at the beginning"))
    add("--weight_decay", type=float, help=_help("weight_decay", ""))
    add("--temperature", type=float, help=_help("temperature", "of rollouts"))
    add(
        "--average",
        type=float,
        metavar="DECAY",
        help=_help(
            "average", "evaluate and keep the moving mean of the weights, with this decay at each step; 0: none"
        ),
    )
    add("--max_new_tokens", type=int, metavar="N", help=_help("max_new_tokens", "limit of a reply"))
    add(
        "--no_target_share",
        type=float,
        metavar="SHARE",
        help=_help(
            "no_target_share", "of requests with nothing to find, in scenes (of --data it is decided by prepare)"
        ),
    )
    add(
        "--rehearsed_share",
        type=float,
        metavar="SHARE",
        help=_help("rehearsed_share", "of scenes with drawings of the supervised stages"),
    )
    add("--lora", type=int, nargs="?", const=64, default=0, metavar="RANK", help="train adapters; default rank: 64")
    add("--freeze", choices=("vision", "language"), help="leave the vision tower or the language model as it is")
    add(
        "--without",
        nargs="+",
        choices=("thinking", "non_repeat"),
        default=[],
        help="thinking: answer at once; non_repeat: without that reward",
    )
    add("--eval_every", type=int, metavar="STEPS", help=_help("eval_every", ""))
    add("--eval_n", type=int, metavar="N", help=_help("eval_n", "rows to evaluate on"))
    add("--save_every", type=int, metavar="STEPS", help=_help("save_every", "how much a killed run may lose"))
    add("--sample_every", type=int, default=5, metavar="STEPS", help="log some replies; 0: none; default: %(default)s")
    add("--seed", type=int, default=1, help="of rollouts, order and scenes; default: %(default)s")
    add("--threads", type=int, default=0, metavar="N", help="processor cores to use; default: all")
    return parser


def _defaults(name: str) -> str:
    presets = {"default": PUBLISHED, "tiny": TINY, "router": ROUTER, "tiny router": TINY_ROUTER}
    return ", ".join(f"{preset}: {values[name]}" for preset, values in presets.items() if name in values)


def _help(name: str, text: str) -> str:
    return f"{text}; {_defaults(name)}" if text else _defaults(name)


def complete(settings: argparse.Namespace) -> argparse.Namespace:
    """The settings with the preset's values where none was given.

    Raises:
        UsageError: they do not go together.
    """
    tiny, router = settings.preset == "tiny", settings.what == "router"
    defaults = (
        PUBLISHED | (ROUTER if router else {}) | (TINY if tiny else {}) | (TINY_ROUTER if tiny and router else {})
    )
    for name in ("no_target_share", "rehearsed_share"):
        if getattr(settings, name) is not None and (settings.data or router):
            raise UsageError(f"--{name} is of scenes, which a reasoner is trained on where there is no --data")
    if settings.lora:
        defaults["lr"] *= LORA_LR
    if settings.epochs is not None:
        defaults["max_steps"] = -1
    for name, value in defaults.items():
        if getattr(settings, name) is None:
            setattr(settings, name, value)
    if not tiny and settings.model_path is None:
        raise UsageError("which checkpoint? give --model_path, or --preset tiny for the bundled one")
    if not tiny and not router and settings.data is None:
        raise UsageError("which rows? give --data, or --preset tiny for scenes")
    if router and (settings.without or settings.freeze or settings.eval_data):
        raise UsageError("--without, --freeze and --eval_data are not for a router")
    if settings.eval_data and not settings.data:
        raise UsageError("--eval_data goes with --data; without it, scenes that are never trained on are evaluated")
    if settings.lora and settings.freeze == "language":
        raise UsageError("--lora adapts the language model, which --freeze language leaves as it is")
    if settings.num_generations < 2:
        raise UsageError(f"--num_generations {settings.num_generations}: rollouts are compared, so at least 2")
    for name in ("average", "no_target_share", "rehearsed_share"):
        value = getattr(settings, name)
        if value is not None and not 0 <= value < 1:
            raise UsageError(f"--{name} {value}: must be at least 0 and less than 1")
    for name in ("batch_size", "micro_batch", "max_new_tokens", "eval_every", "eval_n", "save_every"):
        if getattr(settings, name) < 1:
            raise UsageError(f"--{name} {getattr(settings, name)}: must be at least 1")
    if settings.data is None and settings.max_steps < 1:
        raise UsageError("there are requests without end: give --max_steps")
    return settings


def run(settings: argparse.Namespace) -> int:
    """Train and say where the result is."""
    settings = complete(settings)
    try:
        import peft  # noqa: F401
        import tensorboard  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; pip install '.[train]'") from error
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
