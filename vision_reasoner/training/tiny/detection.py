"""The losses of the vision stage: the tower as a dense detector of the ideal tokens.

Few cells are near an object's center, so the loss on tokens alone is a weak signal. A head on a middle block, which is
dropped after training, also predicts for every patch the object that it shows and where that object is.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index

from vision_reasoner.geometry import Box, Point
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject
from vision_reasoner.training.tiny.architecture import (
    CELL,
    CLAIM,
    NO_CLASS,
    PATCH,
    VISION_CONFIG,
    CellTruth,
    ConceptCodebook,
    pixel_values,
)
from vision_reasoner.training.tiny.loop import Losses

LOGIT_SCALE = 8.0  # of a token's products with the codebook's unit vectors: 0 and 1 become confident logits
# Weights of the losses, so that none drowns the others: classes are by far the slowest to learn, then the numbers.
POSITIVE_WEIGHT, BODY_WEIGHT, BACKGROUND_WEIGHT = 1.0, 0.3, 0.2  # of the class, by where the cell is
OBJECTNESS_WEIGHT = 4.0
NUMBER_WEIGHT, NUMBER_BETA = 3.0, 0.1  # smooth L1 in cells: quadratic below 3 pixels
TOKEN_WEIGHT = 0.05  # of the squared distance to the ideal token: nothing else may be in it
ATTRIBUTE_WEIGHT = 0.3  # of color and company
PATCH_BACKGROUND_WEIGHT = 0.3  # in the auxiliary head
AUXILIARY_BLOCK = 3  # the block whose output the auxiliary head reads
MIN_SHOWN = 0.3  # of a patch must be an object's pixels for the patch to show it
JITTER = (-CELL // 3, CELL // 3)  # pixels by which a crop is shifted, so that objects are not always in its center
SIGN_CROP = 5  # cells of a crop that contains a whole sign
CROPS_PER_IMAGE = {2: 12, 3: 6, SIGN_CROP: 3}  # by the crop's cells: crops in the place of one whole image
WHITENING_EPSILON = 0.05  # added to the variances of principal components: the last ones are noise


def vision_loss(
    tokens: Tensor,
    truth: CellTruth,
    codebook: ConceptCodebook,
    weights: Tensor | None = None,
    *,
    one_each: bool = False,
    claim_weight: Tensor | float = 1.0,
) -> Losses:
    """The distance of tokens from the ideal ones: class, color, company, numbers, objectness, and the plain distance.

    Args:
        tokens: (cells, WIDTH) of a batch, scene by scene.
        truth: of the same cells.
        codebook: the vectors that the tokens should be sums of.
        weights: (cells,) of cells that show an object, for their class and numbers; None: all are alike.
        one_each: whether one cell alone is to claim an object, rather than all near its center. Where objects are
            crowded, the language model cannot tell claims of one from claims of two.
        claim_weight: weight of the objectness loss of a cell that is to claim an object, (cells,) or one for all. With
            w, a cell learns to claim what is there with a probability above 1 / (1 + w).

    Returns:
        The loss, and `class` (accuracy at positive cells), `sides` (mean error in pixels), `objectness` (F1),
        `undecided` (share of candidate cells whose objectness is neither), `color` and `company` (accuracies); each
        where there is something to measure it on.
    """
    numbers = tokens @ codebook.numbers.T
    there, positive = truth.label != NO_CLASS, truth.positive
    logits = tokens @ codebook.classes.T * LOGIT_SCALE
    class_loss = F.cross_entropy(logits, truth.label, reduction="none")
    if weights is not None:
        class_loss = torch.where(there, weights * class_loss, class_loss)
    error = (numbers - truth.numbers)[there, :-1]
    scale = 1.0 if weights is None else weights[there][:, None]
    objectness = (numbers[:, -1] - CLAIM) * LOGIT_SCALE
    # towards the tower's own decision where one pixel would decide: a value in between could be read either way
    decided = objectness.detach()
    target = truth.one_each(decided) if one_each else torch.where(truth.ambiguous, decided > 0, positive)
    objectness_loss = F.binary_cross_entropy_with_logits(
        objectness, target.float(), torch.where(target, claim_weight, torch.ones_like(objectness))
    )
    parts = [
        (POSITIVE_WEIGHT, class_loss[positive]),
        (BODY_WEIGHT, class_loss[there & ~positive]),
        (BACKGROUND_WEIGHT, class_loss[~there]),
    ]
    loss = torch.stack([weight * part.mean() for weight, part in parts if len(part)]).sum()
    loss = loss + OBJECTNESS_WEIGHT * objectness_loss
    if there.any():
        number_loss = F.smooth_l1_loss(error, torch.zeros_like(error), beta=NUMBER_BETA, reduction="none")
        loss = loss + NUMBER_WEIGHT * (scale * number_loss).mean()
    loss = loss + TOKEN_WEIGHT * ((tokens - codebook.tokens(truth)) ** 2).sum(1).mean()
    claimed = objectness > 0
    metrics = {}
    if positive.any():
        shown = logits[positive].index_fill(1, torch.tensor(NO_CLASS), -torch.inf)
        metrics["class"] = (shown.argmax(1) == truth.label[positive]).float().mean().item()
        metrics["sides"] = error.abs()[positive[there]].mean().item() * CELL
    if claimed.any() or target.any():
        metrics["objectness"] = (2 * (claimed & target).sum() / (claimed.sum() + target.sum())).item()
    if truth.candidate.any():
        metrics["undecided"] = (objectness[truth.candidate].abs() < LOGIT_SCALE / 4).float().mean().item()
    attributes = (("color", truth.color, codebook.colors), ("company", truth.company, codebook.companies))
    for name, index, vectors in attributes:
        where = (index >= 0) & positive
        if where.any():
            guess = tokens[where] @ vectors.T * LOGIT_SCALE
            loss = loss + ATTRIBUTE_WEIGHT * F.cross_entropy(guess, index[where])
            metrics[name] = (guess.argmax(1) == index[where]).float().mean().item()
    return loss, {"loss": loss.item(), **metrics}


class PatchTruth:
    """What each patch of a batch of square crops shows, one row per patch in the order of the tower's blocks.

    Attributes:
        label: class; NO_CLASS for background.
        sides: (patches, 4), x1 y1 x2 y2 of the object's box, in cells from the patch's center.
    """

    def __init__(self, crops: Sequence[Sequence[SceneObject]], cells: int) -> None:
        """Of the objects in crops of `cells` x `cells` cells."""
        n = cells * CELL // PATCH
        label, sides = np.full((len(crops), n, n), NO_CLASS), np.zeros((len(crops), n, n, 4), np.float32)
        centers = np.arange(n) * PATCH + PATCH / 2
        for b, objects in enumerate(crops):
            most = np.full((n, n), MIN_SHOWN)
            for o in objects:
                shown = o.mask.reshape(n, PATCH, n, PATCH).mean((1, 3))
                rows, columns = np.where(shown > most)
                most[rows, columns] = shown[rows, columns]
                x, y = centers[columns], centers[rows]
                label[b, rows, columns] = o.label
                sides[b, rows, columns] = (np.array(o.box.inclusive) - np.stack([x, y] * 2, 1)) / CELL
        grid = torch.tensor([[1, n, n]] * len(crops))
        order, _ = get_vision_window_index(grid, 2, VISION_CONFIG["window_size"], PATCH, kwargs={})
        self.label, self.sides = (
            torch.as_tensor(v)
            .view(len(crops), cells, 2, cells, 2, -1)
            .transpose(2, 3)
            .reshape(-1, 4, k)[order]
            .reshape(-1, k)
            for v, k in ((label, 1), (sides, 4))
        )
        self.label = self.label[:, 0]


class PatchHead(nn.Module):
    """Predicts class and box from the patches inside the tower; it is not part of the exported checkpoint."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(VISION_CONFIG["hidden_size"], NO_CLASS + 1 + 4)
        self.patches = torch.empty(0)
        tower.blocks[AUXILIARY_BLOCK].register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, output: Tensor) -> None:
        del module, inputs
        self.patches = output.float()

    def loss(self, truth: PatchTruth) -> Losses:
        """On the crops that the tower encoded last."""
        predicted = self.linear(F.rms_norm(self.patches, self.patches.shape[-1:]))
        class_loss = F.cross_entropy(predicted[:, : NO_CLASS + 1], truth.label, reduction="none")
        there = truth.label < NO_CLASS
        error = (predicted[:, NO_CLASS + 1 :] - truth.sides)[there]
        loss = (
            class_loss[there].mean()
            + PATCH_BACKGROUND_WEIGHT * class_loss[~there].mean()
            + NUMBER_WEIGHT * F.smooth_l1_loss(error, torch.zeros_like(error), beta=NUMBER_BETA)
        )
        right = (predicted[there][:, :NO_CLASS].argmax(1) == truth.label[there]).float().mean()
        return loss, {"patch class": right.item(), "patch sides": error.abs().mean().item() * CELL}


def crop_around(scene: Scene, o: SceneObject, cells: int, rng: random.Random) -> tuple[np.ndarray, list[SceneObject]]:
    """A square of `cells` x `cells` cells around an object, and the objects in it.

    A step on crops of objects shows as many objects as one on whole images in less time.
    """
    width, height = scene.size
    side = cells * CELL
    x = min(max(0, (o.box.x1 + o.box.x2 - side) // 2 + rng.randint(*JITTER)), width - side)
    y = min(max(0, (o.box.y1 + o.box.y2 - side) // 2 + rng.randint(*JITTER)), height - side)
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


def sample_crops(
    pool: Sequence[Scene], cells: int, images: int, rng: random.Random
) -> list[tuple[np.ndarray, list[SceneObject]]]:
    """Crops of `cells` x `cells` cells around random objects that fit, or whole images, with the objects in them.

    Args:
        pool: scenes to sample from.
        cells: a key of CROPS_PER_IMAGE, or GRID for whole images; with SIGN_CROP, crops are around signs.
        images: number of whole images; CROPS_PER_IMAGE crops take the place of each.
        rng: decides everything.
    """
    if cells == GRID:
        return [(s.image, s.objects) for s in rng.sample(pool, min(len(pool), images))]
    fitting = [
        (s, o)
        for s in pool
        for o in s.objects
        if max(o.box.x2 - o.box.x1, o.box.y2 - o.box.y1) < cells * CELL and (o.text or cells != SIGN_CROP)
    ]
    chosen = rng.sample(fitting, min(images * CROPS_PER_IMAGE[cells], len(fitting)))
    return [crop_around(s, o, cells, rng) for s, o in chosen]


@torch.no_grad()
def init_patch_embedding(tower: Any, images: Sequence[np.ndarray]) -> None:
    """Initialize the patch embedding with the whitened principal components of patches (PCA)."""
    weight = tower.patch_embed.proj.weight
    patches = pixel_values(images).view(-1, 3, 2, PATCH * PATCH)[:, :, 0].flatten(1)
    patches = patches - patches.mean(0)
    variance, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
    first = (axes / (variance + WHITENING_EPSILON).sqrt()).flip(1)[:, : len(weight)].T
    weight.copy_((first.view(-1, 3, 1, PATCH, PATCH) / 2).expand_as(weight))  # both frames of a still image are alike
