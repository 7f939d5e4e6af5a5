"""The vision tower's stage: what its cells and patches are told is what the views show."""

import random

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index

from tests.support.drawings import sprites
from vision_reasoner.scenes.scene import Scene, random_scene
from vision_reasoner.training.tiny.architecture import (
    CELL,
    GRID,
    NO_CLASS,
    PATCH,
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
    crop_around,
    sample_crops,
    vision_loss,
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = random.Random(7)
    return [random_scene(sprites(), rng, (SIDE, SIDE), min_objects=5) for _ in range(3)]


def test_patches_show_the_object_whose_mask_covers_them_in_the_order_of_the_towers_windows(scenes: list[Scene]) -> None:
    truth, n = PatchTruth([s.objects for s in scenes], GRID), SIDE // PATCH
    order, _ = get_vision_window_index(torch.tensor([[1, n, n]] * 3), 2, SIDE // 2, PATCH, kwargs={})
    units = torch.argsort(order)  # each 2 x 2 patches, row by row
    labels = truth.label.view(-1, 4)[units].view(3, GRID, GRID, 4)
    sides = truth.sides.view(-1, 4, 4)[units].view(3, GRID, GRID, 4, 4)
    for b, scene in enumerate(scenes):
        for o in scene.objects:
            row, column = o.point.y // PATCH, o.point.x // PATCH
            at = b, row // 2, column // 2, row % 2 * 2 + column % 2
            assert labels[at] == o.label
            center = np.array([column, row, column, row]) * PATCH + PATCH / 2
            assert np.allclose(sides[at].numpy() * CELL + center, o.box.inclusive, atol=1e-3)
    covered = sum(int(o.mask.sum()) for s in scenes for o in s.objects) / (3 * SIDE**2)
    assert covered < float((truth.label < NO_CLASS).float().mean()) < 1.6 * covered


def test_a_crop_has_its_objects_where_they_are_seen_in_it(scenes: list[Scene]) -> None:
    rng = random.Random(0)
    for scene in scenes:
        for o in scene.objects:
            image, seen = crop_around(scene, o, 3, rng)
            assert image.shape == (3 * CELL, 3 * CELL, 3)
            [same] = [s for s in seen if s.label == o.label and s.mask.sum() and s.point is not o.point][:1]
            assert same.mask.shape == (3 * CELL, 3 * CELL)
            for s in seen:
                rows, columns = np.where(s.mask)
                inside = (rows >= s.box.y1) & (rows < s.box.y2) & (columns >= s.box.x1) & (columns < s.box.x2)
                assert inside.all()


def test_ideal_tokens_are_worth_more_than_others(scenes: list[Scene]) -> None:
    codebook, truth = ConceptCodebook(), CellTruth([s.objects for s in scenes])
    ideal = codebook.tokens(truth)
    best, seen = vision_loss(ideal, truth, codebook)
    assert seen["class"] == seen["objectness"] == 1.0
    assert seen["sides"] < 0.01
    torch.manual_seed(0)
    for noise in (0.1, 0.5):
        worse, _ = vision_loss(
            ideal + noise * torch.randn_like(ideal), CellTruth([s.objects for s in scenes]), codebook
        )
        assert worse > best


def test_where_one_cell_alone_claims_each_object_it_is_the_towers_own_choice_and_no_other(scenes: list[Scene]) -> None:
    codebook, truth = ConceptCodebook(), CellTruth([s.objects for s in scenes])
    objectness = torch.rand(len(truth.label), generator=torch.Generator().manual_seed(1))
    chosen = truth.one_each(objectness)
    owners = truth.owner[chosen].tolist()
    assert sorted(owners) == sorted(set(truth.owner[truth.positive].tolist()))
    for cell, owner in zip(chosen.nonzero()[:, 0].tolist(), owners, strict=True):
        assert objectness[cell] == objectness[(truth.owner == owner) & truth.positive].max()
    losses = []
    for claims in (chosen, truth.positive):
        numbers = truth.numbers.clone()
        numbers[:, -1] = claims.float()
        tokens = codebook.tokens(truth, numbers)
        losses.append([vision_loss(tokens, truth, codebook, one_each=one)[0] for one in (False, True)])
    assert losses[0][1] < losses[1][1]  # one claim is worth more than several
    assert losses[1][0] < losses[0][0]  # elsewhere all claims near the center are


def test_a_claim_weight_makes_an_object_that_is_missed_worse_and_a_false_claim_as_bad_as_before(
    scenes: list[Scene],
) -> None:
    codebook, truth = ConceptCodebook(), CellTruth([s.objects for s in scenes])
    numbers = truth.numbers.clone()

    def added(objectness: float) -> float:
        numbers[:, -1] = objectness
        tokens = codebook.tokens(truth, numbers)
        one, more = (vision_loss(tokens, truth, codebook, claim_weight=weight)[0] for weight in (1.0, 1.5))
        return (more - one).item()

    assert added(-1.0) > 0.5
    assert added(2.0) == pytest.approx(0, abs=1e-3)


def test_a_step_updates_every_weight_of_the_tower(scenes: list[Scene]) -> None:
    torch.manual_seed(0)
    tower, codebook = make_vision_tower(), ConceptCodebook()
    head = PatchHead(tower)
    tokens = encode_images(tower, [s.image for s in scenes])
    loss, _ = vision_loss(tokens, CellTruth([s.objects for s in scenes]), codebook)
    asked, seen = head.loss(PatchTruth([s.objects for s in scenes], GRID))
    (loss + asked).backward()
    assert {"patch class", "patch sides"} == set(seen)
    for name, p in (*tower.named_parameters(), *head.named_parameters()):
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0 or name.endswith("k.bias"), name


def test_a_step_has_crops_in_the_place_of_images(scenes: list[Scene]) -> None:
    rng = random.Random(1)
    whole = sample_crops(scenes, GRID, 2, rng)
    assert [image.shape for image, _ in whole] == [(SIDE, SIDE, 3)] * 2
    small = sample_crops(scenes * 9, 3, 2, rng)
    assert [image.shape for image, _ in small] == [(3 * CELL, 3 * CELL, 3)] * 12
    with_sign = random_scene(sprites(), rng, (SIDE, SIDE), min_objects=5, sign_share=1.0)
    for image, objects in sample_crops([with_sign], SIGN_CROP, 1, rng):
        assert image.shape == (SIGN_CROP * CELL, SIGN_CROP * CELL, 3)
        assert any(o.text for o in objects)
