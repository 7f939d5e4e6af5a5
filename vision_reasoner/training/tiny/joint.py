"""Stage 3: the vision tower and the language model put together, then trained together; and the checkpoint that ships.

    python -m vision_reasoner.training.tiny.joint --minutes 120

Begins with the weights of stages 1 and 2 in `--output_dir`; `--export_only` writes the checkpoint of what is there.
With `--average` of other runs that went on from the same weights, it is the mean of all, often better than each.
"""

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_reasoner.cli import make_parser
from vision_reasoner.errors import VisionReasonerError
from vision_reasoner.scenes.art import load_sprites
from vision_reasoner.scenes.requests import random_requests
from vision_reasoner.scenes.scene import random_scene
from vision_reasoner.training.tiny.architecture import (
    SIDE,
    CellTruth,
    ConceptCodebook,
    encode_images,
    loop,
    make_reasoner,
)
from vision_reasoner.training.tiny.detection import vision_loss
from vision_reasoner.training.tiny.language import (
    NONSENSE_SHARE,
    PREFIX_NOISE,
    SIGNS,
    AuxiliaryHeads,
    ExampleEncoder,
    LanguageObjective,
)
from vision_reasoner.training.tiny.options import add_training_options
from vision_reasoner.training.tiny.tokenizer import build_processor


def load_weights(modules: dict[str, torch.nn.Module], folders: Sequence[Path]) -> None:
    """Give each module the mean of its weights in these folders, in each of the last stage that trained it.

    Raises:
        VisionReasonerError: a folder has none.
    """
    found: dict[str, list[dict[str, Tensor]]] = {name: [] for name in modules}
    for folder in folders:
        last: dict[str, dict[str, Tensor]] = {}
        for stage in ("vision", "language", "joint"):
            path = folder / f"{stage}.pt"
            if path.exists():
                last |= loop.read_checkpoint(path)["modules"]
        if not last:
            raise VisionReasonerError(f"no weights in {folder}: run the stages vision and language first")
        for name in modules.keys() & last.keys():
            found[name].append(last[name])
    for name, states in found.items():
        if states:
            modules[name].load_state_dict({key: torch.stack([s[key] for s in states]).mean(0) for key in states[0]})


def export(model: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint in half precision, as `Reasoner.from_pretrained` reads it."""
    state = {k: v.half() for k, v in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    processor.save_pretrained(folder)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.joint", __doc__)
    add_training_options(parser, minutes=120)
    parser.set_defaults(batch_size=8, lr=5e-4)
    parser.add_argument("--requests", type=int, default=10, help="requests per image, at most (%(default)s)")
    parser.add_argument("--export_only", action="store_true", help="write the checkpoint of the weights there are")
    parser.add_argument("--average", type=Path, nargs="+", default=[], metavar="DIR", help="--output_dir of other runs")
    args = parser.parse_args(argv)
    if args.average and not args.export_only:
        parser.error("--average goes with --export_only")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    processor, codebook = build_processor(), ConceptCodebook()
    model, heads = make_reasoner(processor.tokenizer, codebook), AuxiliaryHeads()
    tower = model.model.visual
    modules: dict[str, torch.nn.Module] = {"tower": tower, "language": model.model.language_model, "heads": heads}
    load_weights(modules, [args.output_dir, *args.average])
    if not args.export_only:
        language, sprites = (
            LanguageObjective(
                model, heads, ExampleEncoder(processor.tokenizer, PREFIX_NOISE, NONSENSE_SHARE), codebook
            ),
            load_sprites(),
        )

        def step_losses(step: int) -> loop.Losses:
            rng = random.Random(args.seed * 4_000_037 + step)
            scenes = [random_scene(sprites, rng, (SIDE, SIDE), sign_share=SIGNS) for _ in range(args.batch_size)]
            tokens, truth = encode_images(tower, [s.image for s in scenes]), CellTruth([s.objects for s in scenes])
            seen, look = vision_loss(tokens, truth, codebook)
            truth.assign(tokens.detach() @ codebook.numbers[-1])
            scenes = truth.assigned_scenes(scenes)
            requests = [random_requests(s, rng, args.requests) for s in scenes]
            told, say = language.losses(scenes, requests, tokens, truth)
            return seen + told, {**look, **say}

        loop.train("joint", modules, step_losses, args)
    if loop.rank_and_world_size()[0] == 0:
        export(model, processor, args.output_dir / "reasoner")
    return 0


if __name__ == "__main__":
    sys.exit(main())
