"""Stage 2: the language model alone, on vision tokens that are made from the truth.

    python -m vision_reasoner.training.tiny.language --minutes 60
    python -m vision_reasoner.training.tiny.language --minutes 60 --seen   # then: on the trained vision tower's tokens

The examples are in `examples`, the losses in `objective`.
"""

import argparse
import sys

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import CheckpointError, ExitCode
from vision_reasoner.training.tiny.options import add_training_options, positive_int

MAX_OBJECTS = 12
FEWEST_OBJECTS, STEPS_PER_OBJECT = 4, 60  # a curriculum: scenes have at most 4 objects at first, then more and more
TOKEN_NOISE = 0.02  # standard deviation, of every component of the tokens that are made from the truth


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.language", __doc__)
    add_training_options(parser, minutes=60)
    parser.add_argument(
        "--requests", type=positive_int, default=10, help="requests per image, at most (default: %(default)s)"
    )
    parser.add_argument("--seen", action="store_true", help="tokens of stage 1's vision tower, not made from the truth")
    return run_command(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Train the language model; its checkpoint is `output_dir/language.pt`."""
    import torch

    from vision_reasoner.scenes.art import load_sprites
    from vision_reasoner.scenes.requests import random_requests
    from vision_reasoner.scenes.scene import random_scene
    from vision_reasoner.seeds import seeded
    from vision_reasoner.training.tiny import loop
    from vision_reasoner.training.tiny.architecture import (
        SIDE,
        CellTruth,
        ConceptCodebook,
        encode_images,
        make_reasoner,
    )
    from vision_reasoner.training.tiny.examples import NONSENSE_SHARE, PREFIX_NOISE, SIGN_SHARE, ExampleEncoder
    from vision_reasoner.training.tiny.objective import AuxiliaryHeads, LanguageObjective
    from vision_reasoner.training.tiny.tokenizer import build_tokenizer

    sprites = load_sprites()
    loop.set_up(args)
    tokenizer, codebook = build_tokenizer(), ConceptCodebook()
    model, heads = make_reasoner(tokenizer, codebook), AuxiliaryHeads()
    tower = model.model.visual.requires_grad_(False)
    objective = LanguageObjective(model, heads, ExampleEncoder(tokenizer, PREFIX_NOISE, NONSENSE_SHARE), codebook)
    if args.seen and not loop.resume(args.output_dir / "vision.pt", {"tower": tower}).step:
        raise CheckpointError(
            f"no vision tower in {args.output_dir}: run `python -m vision_reasoner.training.tiny.vision` first"
        )

    def step_losses(step: int) -> loop.Losses:
        rng = seeded("language", args.seed, step)
        most = min(MAX_OBJECTS, FEWEST_OBJECTS + step // STEPS_PER_OBJECT)
        scenes = [
            random_scene(sprites, rng, (SIDE, SIDE), max_objects=most, sign_share=SIGN_SHARE)
            for _ in range(args.batch_size)
        ]
        truth = CellTruth([s.objects for s in scenes])
        if args.seen:
            with torch.no_grad():
                tokens = encode_images(tower, [s.image for s in scenes])
        else:
            tokens = codebook.noisy_tokens(truth)
            tokens = tokens + TOKEN_NOISE * torch.randn_like(tokens)
        truth.assign(tokens @ codebook.numbers[-1])
        scenes = truth.assigned_scenes(scenes)
        requests = [random_requests(s, rng, args.requests) for s in scenes]
        return objective.losses(scenes, requests, tokens, truth)

    loop.train("language", {"language": model.model.language_model, "heads": heads}, step_losses, args)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
