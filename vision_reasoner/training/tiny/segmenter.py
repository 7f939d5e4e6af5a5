"""The segmenter of VisionReasoner-Tiny: SAM2's own modules with a small Hiera, trained from scratch on scenes.

    python -m vision_reasoner.training.tiny.segmenter --minutes 120

Differences from the training of SAM2: one box and at most one point per object, no rounds of clicks and no video; all
three masks learn the same truth, because a box leaves no ambiguity; the truth is the share of each low-resolution
pixel that the object covers, so that the upsampled logits place edges between pixels.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import ExitCode
from vision_reasoner.training.tiny.options import add_training_options

if TYPE_CHECKING:
    from torch import Tensor

    from vision_reasoner.scenes.scene import Scene, SceneObject
    from vision_reasoner.training.tiny import loop

WIDTH = 128  # of the mask decoder and all of its inputs
IMAGE_SIZE = 384  # masks are a quarter of it; a quarter of 256 cannot draw small objects (0.92 IoU at best)
STRIDE = 4  # of the low-resolution masks
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # sam2's own, in SAM2Transforms
NO_POINT = -1  # the prompt encoder's label for padding
MAX_OBJECTS = 12  # of a scene
OBJECTS_PER_STEP = 48  # at most: bounds the memory and time of a step
CORNER_NOISE = (
    0.05  # standard deviation of a prompt's corners, relative to the box's sides: a reasoner's boxes are not exact
)
NO_POINT_SHARE, RANDOM_POINT_SHARE = 0.1, 0.3  # of prompts: without a point; with a point that is not the innermost
OUTLINE_MARGIN = 0.2  # of the box's sides: the loss inside this margin weighs as much as all pixels outside together
SMOOTHING = 1.0  # of the dice loss, in pixels: it stays defined for empty masks
VIDEO_MODULES = ("memory_attention", "memory_encoder", "mask_downsample", "obj_ptr_proj", "obj_ptr_tpos_proj")


def config() -> dict[str, Any]:
    """The sam2 package's configuration of its tiny model, with a smaller Hiera, image and width."""
    from importlib.resources import files

    from omegaconf import OmegaConf

    text = files("sam2").joinpath("configs/sam2/sam2_hiera_t.yaml").read_text(encoding="utf-8")
    full: Any = OmegaConf.to_container(OmegaConf.create(text))
    model = full["model"]
    model["image_size"] = IMAGE_SIZE
    model["image_encoder"]["trunk"].update(embed_dim=32, stages=[1, 2, 4, 1], global_att_blocks=[5])
    model["image_encoder"]["neck"].update(backbone_channel_list=[256, 128, 64, 32], d_model=WIDTH)
    model["image_encoder"]["neck"]["position_encoding"]["num_pos_feats"] = WIDTH
    # the memory is for video only: as small as possible
    model["memory_attention"].update(num_layers=1, d_model=WIDTH)
    model["memory_attention"]["layer"].update(dim_feedforward=64, d_model=WIDTH)
    for name in ("self_attention", "cross_attention"):
        model["memory_attention"]["layer"][name].update(feat_sizes=[IMAGE_SIZE // 16] * 2, embedding_dim=WIDTH)
    return {"model": model}


def make_segmenter() -> Any:
    """A SAM2Base of that shape, with fresh weights."""
    from vision_reasoner.models.segmenter import _build

    return _build(config()["model"])


def features(model: Any, images: Sequence[np.ndarray]) -> list[Tensor]:
    """What `Segmenter.encode` computes, with gradients: three levels (B, C, h, w), finest first.

    Args:
        model: a SAM2Base.
        images: (IMAGE_SIZE, IMAGE_SIZE, 3) uint8 each.
    """
    import torch

    x = torch.as_tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    _, levels, _, sizes = model._prepare_backbone_features(model.forward_image(x))
    levels[-1] = levels[-1] + model.no_mem_embed
    return [v.permute(1, 2, 0).unflatten(2, s) for v, s in zip(levels, sizes, strict=True)]


def random_prompt(o: SceneObject, rng: random.Random) -> tuple[list[list[float]], list[int]]:
    """A noisy box and a point inside the object: three (x, y) in pixels, and their labels for the prompt encoder."""
    from vision_reasoner.models.segmenter import BOX_CORNERS, POSITIVE_POINT

    b = o.box
    dx, dy = CORNER_NOISE * (b.x2 - b.x1), CORNER_NOISE * (b.y2 - b.y1)
    corners = [[b.x1 + rng.gauss(0, dx), b.y1 + rng.gauss(0, dy)], [b.x2 + rng.gauss(0, dx), b.y2 + rng.gauss(0, dy)]]
    if rng.random() < NO_POINT_SHARE:
        return [*corners, [0.0, 0.0]], [*BOX_CORNERS, NO_POINT]
    point = [float(o.point.x), float(o.point.y)]
    if rng.random() < RANDOM_POINT_SHARE:
        rows, columns = np.nonzero(o.mask)
        i = rng.randrange(len(rows))
        point = [float(columns[i]), float(rows[i])]
    return [*corners, point], [*BOX_CORNERS, POSITIVE_POINT]


def losses(model: Any, scenes: Sequence[Scene], rng: random.Random, most: int = OBJECTS_PER_STEP) -> loop.Losses:
    """On scenes painted at IMAGE_SIZE, for at most `most` of their objects.

    Returns:
        Cross-entropy near the outline and far from it, dice loss and the error of the predicted IoU, all weighed alike;
        and `iou` of the mask that the model scores highest, `best` of its three masks, `dice`.
    """
    import torch
    from torch.nn import functional as F

    levels = features(model, [s.image for s in scenes])
    chosen = [(b, o) for b, s in enumerate(scenes) for o in s.objects]
    chosen = rng.sample(chosen, min(most, len(chosen)))
    of = torch.tensor([b for b, _ in chosen])
    prompts = [random_prompt(o, rng) for _, o in chosen]
    points, labels = torch.tensor([p for p, _ in prompts]) + 0.5, torch.tensor([v for _, v in prompts])
    sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
    logits, scores, _, _ = model.sam_mask_decoder(
        image_embeddings=levels[-1][of],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=False,
        high_res_features=[v[of] for v in levels[:-1]],
    )
    truth = torch.as_tensor(np.stack([o.mask for _, o in chosen])).float()[:, None]
    share = F.avg_pool2d(truth, STRIDE)  # (n, 1, h, w)
    near = _near_outline([o for _, o in chosen], share.shape[-1])
    bce = F.binary_cross_entropy_with_logits(logits, share.expand_as(logits), reduction="none")
    inside = (bce * near).sum((2, 3)) / near.sum((2, 3))
    outside = (bce * (1 - near)).sum((2, 3)) / (1 - near).sum((2, 3))
    p = logits.sigmoid()
    dice = 1 - (2 * (p * share).sum((2, 3)) + SMOOTHING) / (p.sum((2, 3)) + share.sum((2, 3)) + SMOOTHING)
    with torch.no_grad():
        predicted, covered = logits > 0, share > 0.5
        iou = (predicted & covered).sum((2, 3)) / (predicted | covered).sum((2, 3)).clamp(min=1)
    loss = inside.mean() + outside.mean() + dice.mean() + (scores - iou).abs().mean()
    scored = iou.gather(1, scores.argmax(1, keepdim=True)).mean()
    return loss, {
        "loss": loss.item(),
        "iou": scored.item(),
        "best": iou.max(1).values.mean().item(),
        "dice": dice.mean().item(),
    }


def _near_outline(objects: Sequence[SceneObject], side: int) -> Tensor:
    """(n, 1, side, side): 1 within each object's box and OUTLINE_MARGIN around it, 0 elsewhere."""
    import torch

    near = torch.zeros(len(objects), 1, side, side)
    for i, o in enumerate(objects):
        b = o.box
        dx, dy = OUTLINE_MARGIN * (b.x2 - b.x1) + STRIDE, OUTLINE_MARGIN * (b.y2 - b.y1) + STRIDE
        x1, y1, x2, y2 = (max(0, int(v / STRIDE)) for v in (b.x1 - dx, b.y1 - dy, b.x2 + dx, b.y2 + dy))
        near[i, 0, y1 : y2 + 1, x1 : x2 + 1] = 1
    return near


def export(model: Any, folder: Path) -> None:
    """Write config.yaml and model.safetensors in half precision, as `Segmenter.from_pretrained` reads them."""
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(config()), folder / "config.yaml")
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.segmenter", __doc__)
    add_training_options(parser, minutes=120, batch_size=6, lr=1e-3)
    return run_command(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Train the segmenter and write `output_dir/segmenter`."""
    from vision_reasoner.models.segmenter import Segmenter
    from vision_reasoner.scenes.art import load_sprites
    from vision_reasoner.scenes.scene import random_scene
    from vision_reasoner.seeds import seeded
    from vision_reasoner.training.tiny import loop

    sprites = load_sprites()
    loop.set_up(args)
    model = make_segmenter()
    for name in VIDEO_MODULES:
        if hasattr(model, name):
            getattr(model, name).requires_grad_(False)

    def step_losses(step: int) -> loop.Losses:
        rng = seeded("segmenter", args.seed, step)
        size = IMAGE_SIZE, IMAGE_SIZE
        scenes = [random_scene(sprites, rng, size, max_objects=MAX_OBJECTS) for _ in range(args.batch_size)]
        return losses(model, scenes, rng)

    loop.train("segmenter", {"segmenter": model}, step_losses, args)
    if loop.rank_and_world_size()[0] == 0:
        folder = args.output_dir / "segmenter"
        export(model, folder)
        Segmenter.from_pretrained(folder, device=args.device)  # raises if inference cannot load it
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
