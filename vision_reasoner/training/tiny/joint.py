"""Stage 3: vision tower and language model put together, then trained together; and the export of the reasoner.

    python -m vision_reasoner.training.tiny.joint --minutes 120

Begins with the weights of stages 1 and 2 in `--output_dir`; `--export_only` writes the checkpoint of what is there.
With `--average` of other runs that went on from the same weights, it is the mean of all, often better than each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import CheckpointError, ExitCode, UsageError
from vision_reasoner.training.tiny.options import add_training_options, positive_int

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vision_reasoner.training.tiny import loop


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.joint", __doc__)
    add_training_options(parser, minutes=120, batch_size=8, lr=5e-4)
    parser.add_argument(
        "--requests", type=positive_int, default=10, help="requests per image, at most (default: %(default)s)"
    )
    parser.add_argument("--export_only", action="store_true", help="write the checkpoint of the weights there are")
    parser.add_argument("--average", type=Path, nargs="+", default=[], metavar="DIR", help="--output_dir of other runs")
    return run_command(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Train both halves unless only the export is wanted; write `output_dir/reasoner`."""
    if args.average and not args.export_only:
        raise UsageError("--average goes with --export_only")
    from vision_reasoner.training.tiny import loop
    from vision_reasoner.training.tiny.architecture import ConceptCodebook, make_reasoner
    from vision_reasoner.training.tiny.objective import AuxiliaryHeads
    from vision_reasoner.training.tiny.tokenizer import build_processor

    loop.set_up(args)
    processor, codebook = build_processor(), ConceptCodebook()
    model, heads = make_reasoner(processor.tokenizer, codebook), AuxiliaryHeads()
    modules: dict[str, nn.Module] = {
        "tower": model.model.visual,
        "language": model.model.language_model,
        "heads": heads,
    }
    load_weights(modules, [args.output_dir, *args.average])
    if not args.export_only:
        train(args, model, processor.tokenizer, modules, codebook)
    if loop.rank_and_world_size()[0] == 0:
        export(model, processor, args.output_dir / "reasoner")
    return ExitCode.OK


def train(args: argparse.Namespace, model: Any, tokenizer: Any, modules: dict[str, nn.Module], codebook: Any) -> None:
    """Train both halves on the sum of their stages' losses; the language model reads the tower's tokens."""
    from vision_reasoner.scenes.art import load_sprites
    from vision_reasoner.scenes.requests import random_requests
    from vision_reasoner.scenes.scene import random_scene
    from vision_reasoner.seeds import seeded
    from vision_reasoner.training.tiny import loop
    from vision_reasoner.training.tiny.architecture import SIDE, CellTruth, encode_images
    from vision_reasoner.training.tiny.detection import vision_loss
    from vision_reasoner.training.tiny.examples import NONSENSE_SHARE, PREFIX_NOISE, SIGN_SHARE, ExampleEncoder
    from vision_reasoner.training.tiny.objective import LanguageObjective

    sprites = load_sprites()
    encoder = ExampleEncoder(tokenizer, PREFIX_NOISE, NONSENSE_SHARE)
    objective = LanguageObjective(model, modules["heads"], encoder, codebook)

    def step_losses(step: int) -> loop.Losses:
        rng = seeded("joint", args.seed, step)
        scenes = [random_scene(sprites, rng, (SIDE, SIDE), sign_share=SIGN_SHARE) for _ in range(args.batch_size)]
        tokens, truth = (
            encode_images(modules["tower"], [s.image for s in scenes]),
            CellTruth([s.objects for s in scenes]),
        )
        loss, metrics = vision_loss(tokens, truth, codebook)
        truth.assign(tokens.detach() @ codebook.numbers[-1])
        scenes = truth.assigned_scenes(scenes)
        requests = [random_requests(s, rng, args.requests) for s in scenes]
        language_loss, language_metrics = objective.losses(scenes, requests, tokens, truth)
        return loss + language_loss, {**metrics, **language_metrics}

    loop.train("joint", modules, step_losses, args)


def load_weights(modules: dict[str, nn.Module], folders: Sequence[Path]) -> None:
    """Load into each module the mean of its weights in these folders, in each of the last stage that trained it.

    Raises:
        CheckpointError: a folder has none, or those of another version.
    """
    import torch

    from vision_reasoner.training.tiny import loop

    found: dict[str, list[dict[str, Tensor]]] = {name: [] for name in modules}
    for folder in folders:
        last: dict[str, dict[str, Tensor]] = {}
        for stage in ("vision", "language", "joint"):
            path = folder / f"{stage}.pt"
            if path.exists():
                last |= loop.read_checkpoint(path)["modules"]
        if not last:
            raise CheckpointError(f"no weights in {folder}: run the stages vision and language first")
        for name in modules.keys() & last.keys():
            found[name].append(last[name])
    for name, states in found.items():
        if not states:
            continue
        mean = {key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]}
        try:
            modules[name].load_state_dict(mean)
        except RuntimeError as error:
            raise CheckpointError(
                f"the {name} weights in {', '.join(map(str, folders))} are of another version: train them again"
            ) from error


def export(model: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint in half precision, as `Reasoner.from_pretrained` reads it."""
    state = {k: v.half() for k, v in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
