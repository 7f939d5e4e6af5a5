"""Stage 1: the vision tower alone, as a dense detector of the ideal tokens.

    python -m vision_reasoner.training.tiny.vision --minutes 60

The tokens alone teach slowly: few cells are near an object's centre. Every patch is therefore asked, by a head inside
the tower that is dropped afterwards, what the object is that it shows, and where that lies.
"""

import random
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index

from vision_reasoner.cli import make_parser
from vision_reasoner.geometry import Box, Point
from vision_reasoner.scenes.art import load_sprites
from vision_reasoner.scenes.classes import CLASSES
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject, random_scene
from vision_reasoner.training.tiny.architecture import (
    CELL,
    NO_CLASS,
    PATCH,
    SIDE,
    VISION_CONFIG,
    CellTruth,
    ConceptCodebook,
    encode_images,
    loop,
    make_vision_tower,
    pixel_values,
)
from vision_reasoner.training.tiny.options import add_training_options

FRESH = 16  # new scenes per step; with fewer, the tower learns them by heart
SIGNS = 0.4  # share of scenes with a company's sign: the names are many, and small
PAINTED = 0.6  # share of classes painted where they can be: else what things are is told by their color alone
PAINTABLE = 0.25  # share of scenes with none but such classes: painted, things are the hardest to recognise
SIGN_CELLS = 5  # a detail that holds a whole sign
POOL = 320  # scenes to draw from, so that what a step sees is mixed
ASKED_BLOCK = 3  # whose patches are asked
MIN_SHOWN = 0.3  # of a patch must be an object's for it to show the object
SHARPNESS = 8.0  # of the class logits that are read from a token's products with the code's unit vectors


def vision_loss(tokens: Tensor, truth: CellTruth, codebook: ConceptCodebook) -> loop.Losses:
    """How far the tokens are from the ideal ones: class, color, company, numbers, and the plain distance.

    Args:
        tokens: (cells, WIDTH) of a batch, scene by scene.
        truth: of the same cells.
        code: the vectors the tokens should be made of.
    """
    numbers = tokens @ codebook.numbers.T
    there, near = truth.label < NO_CLASS, truth.near
    logits = tokens @ codebook.classes.T * SHARPNESS
    wrong = F.cross_entropy(logits, truth.label, reduction="none")
    off = (numbers - truth.numbers)[there, :-1]
    objectness = (numbers[:, -1] - 0.5) * SHARPNESS
    # where it is unsure what is near, the tower is held to what it says: a claim in between could be read either way
    positive = torch.where(truth.ambiguous, objectness.detach() > 0, near)
    objectness_loss = F.binary_cross_entropy_with_logits(objectness, positive.float())
    # weighed so that none drowns the others: what things are is by far the slowest to learn, then where they end
    parts = [(1.0, wrong[near]), (0.3, wrong[there & ~near]), (0.2, wrong[~there])]
    loss = torch.stack([weight * part.mean() for weight, part in parts if len(part)]).sum() + 4.0 * objectness_loss
    loss = loss + 3.0 * F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.1)
    loss = loss + 0.05 * ((tokens - codebook.tokens(truth)) ** 2).sum(1).mean()
    seen = {
        "class": (logits[near][:, :NO_CLASS].argmax(1) == truth.label[near]).float().mean().item(),
        "sides": off.abs()[near[there]].mean().item() * CELL,
        "near": (2 * ((objectness > 0) & positive).sum() / ((objectness > 0).sum() + positive.sum())).item(),
        "torn": (objectness[truth.close].abs() < SHARPNESS / 4).float().mean().item(),
    }
    for name, index, vectors in (
        ("color", truth.color, codebook.colors),
        ("company", truth.company, codebook.companies),
    ):
        where = (index >= 0) & near
        if where.any():
            guess = tokens[where] @ vectors.T * SHARPNESS
            loss = loss + 0.3 * F.cross_entropy(guess, index[where])
            seen[name] = (guess.argmax(1) == index[where]).float().mean().item()
    return loss, {"loss": loss.item(), **seen}


class PatchTruth:
    """What each patch of a batch of square views shows, a row per patch in the order of the tower's blocks.

    Attributes:
        label: class (NONE where nothing is).
        sides: (patches, 4), x1 y1 x2 y2 of the object's box in cells from the patch's centre.
    """

    def __init__(self, views: Sequence[Sequence[SceneObject]], cells: int) -> None:
        """Of views of `cells` x `cells` cells."""
        n = cells * CELL // PATCH
        label, sides = np.full((len(views), n, n), NO_CLASS), np.zeros((len(views), n, n, 4), np.float32)
        mid = np.arange(n) * PATCH + PATCH / 2
        for b, objects in enumerate(views):
            most = np.full((n, n), MIN_SHOWN)
            for o in objects:
                shown = o.mask.reshape(n, PATCH, n, PATCH).mean((1, 3))
                rows, columns = np.where(shown > most)
                most[rows, columns] = shown[rows, columns]
                x, y = mid[columns], mid[rows]
                label[b, rows, columns] = o.label
                sides[b, rows, columns] = (np.array(o.box.inclusive) - np.stack([x, y] * 2, 1)) / CELL
        grid = torch.tensor([[1, n, n]] * len(views))
        order, _ = get_vision_window_index(grid, 2, VISION_CONFIG["window_size"], PATCH, kwargs={})
        self.label, self.sides = (
            torch.from_numpy(v)
            .view(len(views), cells, 2, cells, 2, -1)
            .transpose(2, 3)
            .reshape(-1, 4, k)[order]
            .reshape(-1, k)
            for v, k in ((label, 1), (sides, 4))
        )
        self.label = self.label[:, 0]


class PatchHead(nn.Module):
    """Asks the patches inside the tower; it is not part of the checkpoint."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(VISION_CONFIG["hidden_size"], NO_CLASS + 1 + 4)
        self.patches = torch.empty(0)
        tower.blocks[ASKED_BLOCK].register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, output: Tensor) -> None:
        del module, inputs
        self.patches = output.float()

    def loss(self, truth: PatchTruth) -> loop.Losses:
        """Of the views that the tower saw last."""
        said = self.linear(F.rms_norm(self.patches, self.patches.shape[-1:]))
        wrong = F.cross_entropy(said[:, : NO_CLASS + 1], truth.label, reduction="none")
        there = truth.label < NO_CLASS
        off = (said[:, NO_CLASS + 1 :] - truth.sides)[there]
        loss = (
            wrong[there].mean()
            + 0.3 * wrong[~there].mean()
            + 3.0 * F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.1)
        )
        right = (said[there][:, :NO_CLASS].argmax(1) == truth.label[there]).float().mean()
        return loss, {"patch class": right.item(), "patch sides": off.abs().mean().item() * CELL}


def detail(scene: Scene, o: SceneObject, cells: int, rng: random.Random) -> tuple[np.ndarray, list[SceneObject]]:
    """A square of `cells` x `cells` cells around an object, and what is in it: as much to learn from in less time."""
    width, height = scene.size
    side = cells * CELL
    x = min(max(0, (o.box.x1 + o.box.x2 - side) // 2 + rng.randint(-CELL // 3, CELL // 3)), width - side)
    y = min(max(0, (o.box.y1 + o.box.y2 - side) // 2 + rng.randint(-CELL // 3, CELL // 3)), height - side)
    shifted = [
        replace(
            o,
            mask=o.mask[y : y + side, x : x + side],
            box=Box(o.box.x1 - x, o.box.y1 - y, o.box.x2 - x, o.box.y2 - y),
            point=Point(o.point.x - x, o.point.y - y),
        )
        for o in scene.objects
        if o.box.x2 > x and o.box.y2 > y and o.box.x1 < x + side and o.box.y1 < y + side
    ]
    return scene.image[y : y + side, x : x + side], shifted


@torch.no_grad()
def whiten(tower: Any, images: Sequence[np.ndarray]) -> None:
    """Begin with patches' principal components, each of unit variance: what a random projection would have to find."""
    weight = tower.patch_embed.proj.weight
    patches = pixel_values(images).view(-1, 3, 2, PATCH * PATCH)[:, :, 0].flatten(1)
    patches = patches - patches.mean(0)
    variance, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
    first = (axes / (variance + 0.05).sqrt()).flip(1)[:, : len(weight)].T
    weight.copy_((first.view(-1, 3, 1, PATCH, PATCH) / 2).expand_as(weight))


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.vision", __doc__)
    add_training_options(parser, minutes=60)
    parser.add_argument(
        "--shares",
        type=float,
        nargs=4,
        default=(0.3, 0.15, 0.2, 0.35),
        help="of steps on details of 2 and of 3 cells, on signs, and on whole images",
    )
    parser.add_argument("--plain_steps", type=int, default=1000, help="steps until no scene is plain (%(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tower, codebook, sprites = make_vision_tower(), ConceptCodebook(), load_sprites()
    whiten(tower, [random_scene(sprites, random.Random(i), (SIDE, SIDE)).image for i in range(50)])
    head = PatchHead(tower)
    paintable = [found if c.paintable else [] for found, c in zip(sprites, CLASSES, strict=True)]
    pool: deque[Scene] = deque(maxlen=POOL)

    def scene(i: int) -> Scene:
        rng = random.Random(args.seed * 1_000_003 + i)
        plain = rng.random() > i / FRESH / args.plain_steps
        chosen = paintable if rng.random() < PAINTABLE else sprites
        return random_scene(
            chosen,
            rng,
            (SIDE, SIDE),
            max_objects=14,
            max_classes=14,
            plain=plain,
            sign_share=SIGNS,
            painted_share=PAINTED,
        )

    def step_losses(step: int) -> loop.Losses:
        first = (step + 1) * FRESH - (FRESH if pool else POOL)
        pool.extend(scene(i) for i in range(first, (step + 1) * FRESH))
        together = step // loop.rank_and_world_size()[1]  # all processes do the same kind of step
        cells = random.Random(args.seed * 1_000_003 - together).choices((2, 3, SIGN_CELLS, GRID), args.shares)[0]
        rng = random.Random(args.seed * 1_000_003 - step)
        if cells == GRID:
            some = rng.sample(pool, min(len(pool), args.batch_size))
            views = [(s.image, s.objects) for s in some]
        else:
            every = [
                (s, o)
                for s in pool
                for o in s.objects
                if max(o.box.x2 - o.box.x1, o.box.y2 - o.box.y1) < cells * CELL and (o.text or cells != SIGN_CELLS)
            ]
            n = args.batch_size * {2: 12, 3: 6, SIGN_CELLS: 3}[cells]
            views = [detail(s, o, cells, rng) for s, o in rng.sample(every, min(n, len(every)))]
        tokens = encode_images(tower, [image for image, _ in views])
        loss, seen = vision_loss(tokens, CellTruth([objects for _, objects in views], cells), codebook)
        asked, said = head.loss(PatchTruth([objects for _, objects in views], cells))
        seen = {f"{k}{cells}" if k in ("class", "near", "sides") else k: v for k, v in seen.items()}
        return loss + asked, {**seen, **said}

    loop.train("vision", {"tower": tower, "head": head}, step_losses, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
