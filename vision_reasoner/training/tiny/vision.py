"""Stage 1: the vision tower alone, as a dense detector of the ideal tokens.

    python -m vision_reasoner.training.tiny.vision --minutes 60

Most steps are on crops around objects, the rest on whole images. The losses are in `detection`.
"""

import argparse
import random
import sys

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import ExitCode, UsageError
from vision_reasoner.training.tiny.options import add_training_options, positive_int, share

NEW_SCENES_PER_STEP = 32  # of all processes together; with fewer, the tower memorizes them
NEW_SCENES_PER_PROCESS = (4, 16)  # at least, and at most
POOL_SIZE = 320  # scenes that a step's images are sampled from, so that they are mixed
SIGN_SHARE = 0.4  # of scenes with a company's sign: the names are many, and small
PAINTED_SHARE = 0.6  # of paintable classes: without it, classes are told by their color alone
PAINTABLE_ONLY_SHARE = 0.25  # of scenes with paintable classes only: painted objects are the hardest to recognize
VARIED_SHARE, VARIED_PER_STEP = 0.7, 6  # of the drawings, as other hands might have drawn them; drawn anew in a step
MAX_OBJECTS = 14  # and classes: more than in the scenes of later stages, for more objects per image
SHARES = (0.3, 0.15, 0.2, 0.35)  # of steps on crops of 2 and 3 cells, on signs and on whole images
WHITENING_SCENES = 50  # from whose patches the patch embedding is initialized


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.vision", __doc__)
    add_training_options(parser, minutes=60)
    parser.add_argument(
        "--shares",
        type=share,
        nargs=4,
        default=SHARES,
        help="of steps on crops of 2 and of 3 cells, on crops of signs, and on whole images",
    )
    parser.add_argument(
        "--plain_steps", type=positive_int, default=1000, help="steps until no scene is plain (default: %(default)s)"
    )
    return run_command(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Train the tower; its checkpoint is `output_dir/vision.pt`.

    A third of its lines are imports, which stand here so that --help does not wait for torch.
    """
    from collections import deque

    from vision_reasoner.scenes.art import load_sprites
    from vision_reasoner.scenes.classes import CLASSES
    from vision_reasoner.scenes.scene import GRID, Scene, random_scene
    from vision_reasoner.seeds import seeded
    from vision_reasoner.training.tiny import loop
    from vision_reasoner.training.tiny.architecture import (
        SIDE,
        CellTruth,
        ConceptCodebook,
        encode_images,
        make_vision_tower,
    )
    from vision_reasoner.training.tiny.detection import (
        SIGN_CROP,
        PatchHead,
        PatchTruth,
        init_patch_embedding,
        sample_crops,
        vision_loss,
    )
    from vision_reasoner.training.tiny.variation import varied

    sprites = load_sprites("tower")
    if not sum(args.shares):
        raise UsageError("--shares: at least one has to be above 0")
    loop.set_up(args)
    tower, codebook = make_vision_tower(), ConceptCodebook()
    some = [random_scene(sprites, seeded("whitening", i), (SIDE, SIDE)) for i in range(WHITENING_SCENES)]
    init_patch_embedding(tower, [scene.image for scene in some])
    head = PatchHead(tower)
    least, most = NEW_SCENES_PER_PROCESS
    new_scenes = min(most, max(least, NEW_SCENES_PER_STEP // loop.rank_and_world_size()[1]))
    drawn = [list(found) for found in sprites]  # as they are, or varied
    pool: deque[Scene] = deque(maxlen=POOL_SIZE)

    def draw_again(rng: random.Random) -> None:
        """Vary some of the drawings anew."""
        for label in rng.sample([k for k, found in enumerate(sprites) if found], VARIED_PER_STEP):
            k = rng.randrange(len(sprites[label]))
            sprite = sprites[label][k]
            drawn[label][k] = varied(sprite, rng) if rng.random() < VARIED_SHARE else sprite

    def scene(i: int) -> Scene:
        rng = seeded("vision scene", args.seed, i)
        return random_scene(
            [found if c.paintable else [] for found, c in zip(drawn, CLASSES, strict=True)]
            if rng.random() < PAINTABLE_ONLY_SHARE
            else drawn,
            rng,
            (SIDE, SIDE),
            max_objects=MAX_OBJECTS,
            max_classes=MAX_OBJECTS,
            plain=rng.random() > i / new_scenes / args.plain_steps,
            sign_share=SIGN_SHARE,
            painted_share=PAINTED_SHARE,
        )

    def step_losses(step: int) -> loop.Losses:
        draw_again(seeded("varied", args.seed, step))
        end = (step + 1) * new_scenes
        pool.extend(scene(i) for i in range(end - (new_scenes if pool else POOL_SIZE), end))
        # all processes take a step of the same kind: they wait for the slowest
        kind = seeded("vision kind", args.seed, step // loop.rank_and_world_size()[1])
        cells = kind.choices((2, 3, SIGN_CROP, GRID), args.shares)[0]
        crops = sample_crops(pool, cells, args.batch_size, seeded("vision", args.seed, step))
        objects = [visible for _, visible in crops]
        tokens = encode_images(tower, [image for image, _ in crops])
        loss, metrics = vision_loss(tokens, CellTruth(objects, cells), codebook)
        patch_loss, patch_metrics = head.loss(PatchTruth(objects, cells))
        by_size = {f"{k}{cells}" if k in ("class", "objectness", "sides") else k: v for k, v in metrics.items()}
        return loss + patch_loss, {**by_size, **patch_metrics}

    loop.train("vision", {"tower": tower, "head": head}, step_losses, args)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
