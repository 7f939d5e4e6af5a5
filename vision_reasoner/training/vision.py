"""Stage 1: the vision tower alone, as a dense detector of the ideal tokens.

python -m vision_reasoner.training.vision --minutes 60
"""

import argparse
import random
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from vision_reasoner.training import loop
from vision_reasoner.training.art import load_sprites
from vision_reasoner.training.scenes import random_scene
from vision_reasoner.training.tiny import CELL, NONE, SIDE, CellTruth, Code, make_vision, see

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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    loop.add_arguments(parser, minutes=60)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tower, code, sprites = make_vision(), Code(), load_sprites()

    def step_losses(step: int) -> loop.Losses:
        rng = random.Random(args.seed * 1_000_003 + step)
        scenes = [random_scene(sprites, rng, (SIDE, SIDE), 14) for _ in range(args.batch_size)]
        return vision_loss(see(tower, [s.picture for s in scenes]), CellTruth([s.objects for s in scenes]), code)

    loop.train("vision", {"tower": tower}, step_losses, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
