"""Stage 1: the vision tower alone, as a dense detector of the ideal tokens.

python -m vision_reasoner.training.vision --minutes 60
"""

import argparse
import random
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vision_reasoner.training import loop
from vision_reasoner.training.art import load_sprites
from vision_reasoner.training.scenes import GRID, Scene, random_scene
from vision_reasoner.training.tiny import (
    CELL,
    CELLS,
    NONE,
    PATCH,
    SIDE,
    CellTruth,
    Code,
    make_vision,
    pixel_values,
    see,
)

DETAIL = 3  # cells along a detail's side
SHARPNESS = 8.0  # of the class logits that are read from a token's products with the code's unit vectors


def vision_loss(tokens: Tensor, truth: CellTruth, code: Code) -> loop.Losses:
    """How far the tokens are from the ideal ones: class, colour, company, numbers, and the plain distance.

    Args:
        tokens: (cells, WIDTH) of a batch, scene by scene.
        truth: of the same cells.
        code: the vectors the tokens should be made of.
    """
    z = tokens.float()
    there, home = truth.label < NONE, truth.home > 0
    logits = z @ code.classes.T * SHARPNESS
    colours, companies = truth.colour >= 0, truth.company >= 0
    numbers = z @ code.numbers.T
    side_error = numbers[there][:, :-1] - truth.numbers[there][:, :-1]
    at_home = F.binary_cross_entropy_with_logits((numbers[:, -1] - 0.5) * SHARPNESS, truth.home)
    weight = 1.0 + 4.0 * truth.home  # a home cell speaks for its object
    classes = F.cross_entropy(logits, truth.label, reduction="none") * weight
    loss = classes[there].sum() / weight[there].sum() + classes[~there].mean()
    loss = loss + F.smooth_l1_loss(side_error, torch.zeros_like(side_error), beta=0.1) + 2.0 * at_home
    seen = {
        "class": (logits[home][:, :NONE].argmax(1) == truth.label[home]).float().mean().item(),
        "sides": side_error.abs()[home[there]].mean().item() * CELL,
    }
    found = numbers[:, -1] > 0.5
    seen["home"] = (2 * (found & home).sum() / (found.sum() + home.sum())).item()
    for name, where, index, vectors in (
        ("colour", colours, truth.colour, code.colours),
        ("company", companies, truth.company, code.companies),
    ):
        if where.any():
            guess = z[where] @ vectors.T * SHARPNESS
            loss = loss + F.cross_entropy(guess, index[where])
            seen[name] = (guess.argmax(1) == index[where]).float().mean().item()
    ideal = code.tokens(truth)
    loss = loss + 0.3 * (((z - ideal) ** 2).sum(1) * weight).sum() / weight.sum()
    return loss, {"loss": loss.item(), **seen}


def details(
    scenes: Sequence[Scene], truth: CellTruth, rng: random.Random, n: int
) -> tuple[list[np.ndarray], CellTruth]:
    """`n` details of DETAIL x DETAIL cells around objects: as much to learn from as in a whole picture, in far less time."""
    homes = [(b, o.home) for b, s in enumerate(scenes) for o in s.objects]
    pictures, cells = [], []
    block = torch.arange(DETAIL)[:, None] * GRID + torch.arange(DETAIL)
    for b, (row, column) in rng.sample(homes, min(n, len(homes))):
        top, left = (min(max(v - 1, 0), GRID - DETAIL) for v in (row, column))
        y, x = top * CELL, left * CELL
        pictures.append(scenes[b].picture[y : y + DETAIL * CELL, x : x + DETAIL * CELL])
        cells.append(b * CELLS + top * GRID + left + block.flatten())
    return pictures, truth[torch.cat(cells)]


@torch.no_grad()
def whiten(tower: Any, pictures: Sequence[np.ndarray]) -> None:
    """Begin with patches' principal components, each of unit variance: what a random projection would have to find."""
    weight = tower.patch_embed.proj.weight
    patches = pixel_values(pictures).view(-1, 3, 2, PATCH * PATCH)[:, :, 0].flatten(1)
    patches = patches - patches.mean(0)
    variance, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
    first = (axes / (variance + 0.05).sqrt()).flip(1)[:, : len(weight)].T
    weight.copy_((first.view(-1, 3, 1, PATCH, PATCH) / 2).expand_as(weight))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    loop.add_arguments(parser, minutes=60)
    parser.add_argument(
        "--details", type=float, default=0.5, help="share of steps on details of pictures (%(default)s)"
    )
    parser.add_argument("--plain_steps", type=int, default=2000, help="steps until no scene is plain (%(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tower, code, sprites = make_vision(), Code(), load_sprites()
    whiten(tower, [random_scene(sprites, random.Random(i), (SIDE, SIDE)).picture for i in range(50)])

    def step_losses(step: int) -> loop.Losses:
        rng = random.Random(args.seed * 1_000_003 + step)
        zoomed = rng.random() < args.details
        least = 8 if zoomed else 4
        scenes = [
            random_scene(sprites, rng, (SIDE, SIDE), 14, least, 14, plain=rng.random() > step / args.plain_steps)
            for _ in range(args.batch_size)
        ]
        pictures, truth = [s.picture for s in scenes], CellTruth([s.objects for s in scenes])
        if zoomed:
            pictures, truth = details(scenes, truth, rng, 6 * args.batch_size)
        loss, seen = vision_loss(see(tower, pictures), truth, code)
        return loss, {f"{k} near" if zoomed and k in ("class", "home", "sides") else k: v for k, v in seen.items()}

    loop.train("vision", {"tower": tower}, step_losses, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
