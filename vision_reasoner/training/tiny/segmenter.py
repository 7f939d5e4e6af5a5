"""The segmenter of VisionReasoner-Tiny: SAM2's own modules with a small Hiera, trained on scenes from nothing.

    python -m vision_reasoner.training.tiny.segmenter --minutes 120

Departures from how SAM2 was trained: one box and at most one point per object, no clicks in turn and no video; all
three masks learn the same truth, for a box leaves nothing ambiguous; the truth is the share of each low-resolution
pixel that the object covers, so that the upsampled logits cut edges between pixels.
"""

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vision_reasoner.cli import make_parser
from vision_reasoner.models.segmenter import BOX_CORNERS, POSITIVE_POINT, Segmenter
from vision_reasoner.scenes.art import load_sprites
from vision_reasoner.scenes.scene import Scene, SceneObject, random_scene
from vision_reasoner.training.tiny import loop
from vision_reasoner.training.tiny.options import add_training_options

WIDTH = 128  # of the mask decoder and all that it is given
IMAGE_SIZE = 384  # its masks are a quarter of it; a quarter of 256 cannot draw small objects (0.92 IoU at best)
STRIDE = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # sam2's own, in SAM2Transforms
NO_POINT = -1  # the prompt encoder's label for padding


def config() -> dict[str, Any]:
    """The package's yaml for a tiny SAM2, with a smaller Hiera, image and width."""
    from importlib.resources import files

    from omegaconf import OmegaConf

    text = files("sam2").joinpath("configs/sam2/sam2_hiera_t.yaml").read_text(encoding="utf-8")
    full: Any = OmegaConf.to_container(OmegaConf.create(text))
    model = full["model"]
    model["image_size"] = IMAGE_SIZE
    model["image_encoder"]["trunk"].update(embed_dim=32, stages=[1, 2, 4, 1], global_att_blocks=[5])
    model["image_encoder"]["neck"].update(backbone_channel_list=[256, 128, 64, 32], d_model=WIDTH)
    model["image_encoder"]["neck"]["position_encoding"]["num_pos_feats"] = WIDTH
    # the memory is for video, which we do not do: as small as it may be
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
    """What `Segmenter.encode` computes: three levels (B, C, h, w), finest first."""
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    _, levels, _, sizes = model._prepare_backbone_features(model.forward_image(x))
    levels[-1] = levels[-1] + model.no_mem_embed
    return [v.permute(1, 2, 0).unflatten(2, s) for v, s in zip(levels, sizes, strict=True)]


def prompt(o: SceneObject, rng: random.Random) -> tuple[list[list[float]], list[int]]:
    """Two corners, a little off, and a point inside: three (x, y) with their labels."""
    b = o.box
    dx, dy = 0.05 * (b.x2 - b.x1), 0.05 * (b.y2 - b.y1)
    corners = [[b.x1 + rng.gauss(0, dx), b.y1 + rng.gauss(0, dy)], [b.x2 + rng.gauss(0, dx), b.y2 + rng.gauss(0, dy)]]
    if rng.random() < 0.1:
        return [*corners, [0.0, 0.0]], [*BOX_CORNERS, NO_POINT]
    point = [float(o.point.x), float(o.point.y)]
    if rng.random() < 0.3:
        rows, columns = np.nonzero(o.mask)
        i = rng.randrange(len(rows))
        point = [float(columns[i]), float(rows[i])]
    return [*corners, point], [*BOX_CORNERS, POSITIVE_POINT]


def losses(model: Any, scenes: Sequence[Scene], rng: random.Random, most: int = 48) -> loop.Losses:
    """On scenes painted at IMAGE_SIZE, for at most `most` of their objects."""
    levels = features(model, [s.image for s in scenes])
    wanted = [(b, o) for b, s in enumerate(scenes) for o in s.objects]
    wanted = rng.sample(wanted, min(most, len(wanted)))
    of = torch.tensor([b for b, _ in wanted])
    prompts = [prompt(o, rng) for _, o in wanted]
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
    truth = torch.from_numpy(np.stack([o.mask for _, o in wanted])).float()[:, None]
    share = F.avg_pool2d(truth, STRIDE)  # (n, 1, h, w)
    near = _near(wanted, share.shape[-1])
    wrong = F.binary_cross_entropy_with_logits(logits, share.expand_as(logits), reduction="none")
    inside = (wrong * near).sum((2, 3)) / near.sum((2, 3))
    outside = (wrong * (1 - near)).sum((2, 3)) / (1 - near).sum((2, 3))
    p = logits.sigmoid()
    dice = 1 - (2 * (p * share).sum((2, 3)) + 1) / (p.sum((2, 3)) + share.sum((2, 3)) + 1)
    with torch.no_grad():
        drawn, whole = logits > 0, share > 0.5
        iou = (drawn & whole).sum((2, 3)) / (drawn | whole).sum((2, 3)).clamp(min=1)
    loss = inside.mean() + outside.mean() + dice.mean() + (scores - iou).abs().mean()
    chosen = iou.gather(1, scores.argmax(1, keepdim=True)).mean()
    return loss, {
        "loss": loss.item(),
        "iou": chosen.item(),
        "best": iou.max(1).values.mean().item(),
        "dice": dice.mean().item(),
    }


def _near(wanted: Sequence[tuple[int, SceneObject]], side: int) -> Tensor:
    """(n, 1, side, side): 1 within the box and a fifth of it around, where the outline is decided."""
    near = torch.zeros(len(wanted), 1, side, side)
    for i, (_, o) in enumerate(wanted):
        b = o.box
        dx, dy = 0.2 * (b.x2 - b.x1) + STRIDE, 0.2 * (b.y2 - b.y1) + STRIDE
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
    add_training_options(parser, minutes=120)
    parser.set_defaults(batch_size=6, lr=1e-3)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, sprites = make_segmenter(), load_sprites()
    for name in ("memory_attention", "memory_encoder", "mask_downsample", "obj_ptr_proj", "obj_ptr_tpos_proj"):
        getattr(model, name, torch.nn.Identity()).requires_grad_(False)

    def step_losses(step: int) -> loop.Losses:
        rng = random.Random(args.seed * 3_000_017 + step)
        scenes = [random_scene(sprites, rng, (IMAGE_SIZE, IMAGE_SIZE), max_objects=12) for _ in range(args.batch_size)]
        return losses(model, scenes, rng)

    loop.train("segmenter", {"segmenter": model}, step_losses, args)
    if loop.rank_and_world_size()[0] == 0:
        export(model, args.output_dir / "segmenter")
        Segmenter.from_pretrained(args.output_dir / "segmenter", device="cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
