"""VisionReasoner-Tiny: the shape of its reasoner, and the code in which its two halves speak to each other.

The vision tower hands one token per 28 x 28 cell to the language model. What a perfect one would hand over is fixed
here: the sum of orthonormal vectors, one for each class, color and company, and one for each of the numbers that
say where the object lies. The words for a class have the same vector in the language model's embedding, so that what
is seen and what is asked are alike from the first step. Both halves can therefore be trained apart, and put together.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_reasoner.models import window_attention
from vision_reasoner.scenes.classes import CLASSES, COLOR_INDEX, COLORS, COMPANIES
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject
from vision_reasoner.training.tiny import loop

SIDE = 280  # the frame: 10 x 10 merged tokens of 28 pixels
CELL = SIDE // GRID
CELLS = GRID * GRID
PATCH = 14
WIDTH = 256  # of the language model, and of the tokens between the two
HEAD = 64
NUMBERS = 7  # x1 y1 x2 y2 and the point's x y, in cells from the cell's centre; 1 where the object's centre is near
NO_CLASS = len(CLASSES)
NEAR = 0.75  # cells, in x and in y: what is near; the cells near an object's centre are one, two or four
NUMBER_NOISE = 0.15  # in numbers: about as far as a tower's are off
SURE, CLOSE = 0.55, 1.0  # cells between these know the object in any case; the tower itself decides if it is near

VISION_CONFIG: dict[str, Any] = {
    "depth": 6,
    "hidden_size": 192,
    "num_heads": 3,
    "intermediate_size": 512,
    "in_channels": 3,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": SIDE // 2,
    "out_hidden_size": WIDTH,
    "fullatt_block_indexes": [2, 5],
    "tokens_per_second": 2,
}
TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": WIDTH // HEAD,
    "num_key_value_heads": WIDTH // HEAD,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    # with a theta of 1e4 and more, ten rows and columns look alike; with 30, words cannot be found
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [2, 6, 24]},
}


class ConceptCodebook:
    """The vectors of the vision tokens; every group is (n, WIDTH), all rows together are orthonormal."""

    def __init__(self) -> None:
        groups = {"classes": len(CLASSES) + 1, "colors": len(COLORS), "companies": len(COMPANIES), "numbers": NUMBERS}
        square = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(840), dtype=torch.float64)
        rows = torch.linalg.qr(square)[0].float()
        parts = rows[: sum(groups.values())].split(list(groups.values()))
        self.classes, self.colors, self.companies, self.numbers = parts
        self.names = {c.name: self.classes[i] for i, c in enumerate(CLASSES)} | {
            c.plural: self.classes[i] for i, c in enumerate(CLASSES)
        }
        self.names |= {c: self.colors[i] for c, i in COLOR_INDEX.items()} | {
            c: self.companies[i] for i, c in enumerate(COMPANIES)
        }

    def tokens(self, truth: "CellTruth", numbers: Tensor | None = None) -> Tensor:
        """The ideal tokens, (cells, WIDTH); or with other numbers than the truth's."""
        there = (truth.label < NO_CLASS).float()[:, None]
        out = self.classes[truth.label] + there * ((truth.numbers if numbers is None else numbers) @ self.numbers)
        painted, written = truth.color >= 0, truth.company >= 0
        out[painted] += self.colors[truth.color[painted]]
        out[written] += self.companies[truth.company[written]]
        return out

    def noisy_tokens(self, truth: "CellTruth") -> Tensor:
        """Tokens as uncertain as a tower's: numbers are off, and where it is unsure what is near, chance decides.

        With ideal ones each cell could tell from its own offset whether it is a home. A language model that has learned
        that fails with a tower that errs; it must see whether a cell before it objectness the same object.
        """
        numbers = truth.numbers.clone()
        tossed = torch.rand(len(numbers)) < 0.5
        numbers[:, -1] = torch.where(truth.ambiguous, tossed, truth.near)
        return self.tokens(truth, numbers + NUMBER_NOISE * torch.randn_like(numbers))


class CellTruth:
    """What each cell of a batch of scenes shows; all tensors have one row per cell, scene by scene, row by row.

    Attributes:
        label: class (NONE where nothing is).
        color, company: index, -1 where none.
        numbers: (cells, NUMBERS), see NUMBERS.
        owner: number of the object in the whole batch, -1 where none.
        near, close: whether the owner's centre is.
        unsure: whether the tower decides if it is near: for where it is just so, one pixel would decide.
        home: whether the cell is where its owner is listed and looked at: one of the close ones.
    """

    def __init__(self, scenes: Sequence[Sequence[SceneObject]], grid: int = GRID) -> None:
        """Of scenes painted at CELL pixels a cell, `grid` x `grid` cells each; objects may stick out."""
        shape = (len(scenes), grid, grid)
        label, color, company, owner = (np.full(shape, v) for v in (NO_CLASS, -1, -1, -1))
        numbers, near, close = np.zeros((*shape, NUMBERS), np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
        ambiguous = np.zeros(shape, bool)
        mid = np.arange(grid) * CELL + CELL / 2
        first = 0
        for b, objects in enumerate(scenes):
            for part in ("body", "near", "centre"):  # in this order: none is hidden altogether by its neighbours
                for i, o in enumerate(objects, first):
                    x1, y1, x2, y2 = o.box
                    row, column = (y1 + y2) // (2 * CELL), (x1 + x2) // (2 * CELL)
                    inside = 0 <= row < grid and 0 <= column < grid
                    if part != "body" and not inside:
                        continue
                    if part == "centre":
                        rows, columns = np.array([row]), np.array([column])
                    else:
                        reach = (CLOSE if part == "body" else NEAR) * CELL
                        across, down = ((x2 - x1) / 4, (y2 - y1) / 4) if part == "body" else (0, 0)
                        near_x = np.abs(mid - (x1 + x2) / 2) <= max(reach, across)
                        near_y = np.abs(mid - (y1 + y2) / 2) <= max(reach, down)
                        rows, columns = np.where(near_y[:, None] & near_x[None])
                    x, y = mid[columns], mid[rows]
                    off = np.maximum(np.abs(x - (x1 + x2) / 2), np.abs(y - (y1 + y2) / 2))
                    close[b, rows, columns] = off <= CLOSE * CELL
                    ambiguous[b, rows, columns] = (off > SURE * CELL) & (off <= CLOSE * CELL)
                    answer = (*o.box.inclusive, *o.point)  # the numbers that the language model is to write
                    away = (np.array(answer) - np.stack([x, y] * 3, 1)) / CELL
                    numbers[b, rows, columns] = np.concatenate([away, np.full((len(rows), 1), part != "body")], 1)
                    label[b, rows, columns] = o.label
                    color[b, rows, columns] = COLOR_INDEX[o.color] if o.color else -1
                    company[b, rows, columns] = COMPANIES.index(o.text) if o.text else -1
                    owner[b, rows, columns] = i
                    near[b, rows, columns] = part != "body"
            first += len(objects)
        self.label, self.color, self.company, self.owner = (
            torch.from_numpy(v).flatten().long() for v in (label, color, company, owner)
        )
        self.numbers = torch.from_numpy(numbers).view(-1, NUMBERS)
        self.near, self.close, self.ambiguous = (torch.from_numpy(v).flatten() for v in (near, close, ambiguous))
        self.assign(self.numbers[:, -1])

    def assign(self, objectness: Tensor) -> None:
        """Each object's home becomes the first of the close cells that claim it, in reading order.

        Were it the cell that holds the centre, then a centre on a border would be a coin's toss, and the object listed
        twice or never. Some cell always objectness with certainty, and each can see whether one before it does.

        Args:
            objectness: (cells,), about 1 where the tokens say that an object's centre is near, about 0 elsewhere. Where
                none of an object's cells reaches 0.5, the highest counts.
        """
        cells = self.close.nonzero()[:, 0]
        owner, value = self.owner[cells], objectness[cells].clamp(max=0.5)
        objects = int(self.owner.max()) + 1
        most = value.new_full((objects,), -torch.inf).scatter_reduce(0, owner, value, "amax")
        best = value == most[owner]
        first = cells.new_full((objects,), len(self.owner)).scatter_reduce(0, owner[best], cells[best], "amin")
        self.responsible = torch.zeros_like(self.close)
        self.responsible[first[first < len(self.owner)]] = True

    def previous_responsible(self) -> Tensor:
        """Of each home, in the order of the cells: the home before it of its class and scene, CELLS for the first."""
        cells = self.responsible.nonzero()[:, 0]
        kind = cells // CELLS * (NO_CLASS + 1) + self.label[cells]
        same = torch.tril(kind[:, None] == kind, -1)
        last = (same * torch.arange(1, len(cells) + 1)).amax(1) - 1
        return torch.where(last < 0, CELLS, cells[last] % CELLS)

    def assigned_scenes(self, scenes: Sequence[Scene]) -> list[Scene]:
        """The scenes that this is the truth of, their objects at these homes and in the order of these."""
        at = {int(self.owner[cell]): int(cell) % CELLS for cell in self.responsible.nonzero()[:, 0]}
        found, first = [], 0
        for scene in scenes:
            objects = [replace(o, cell=divmod(at[first + k], GRID)) for k, o in enumerate(scene.objects)]
            found.append(replace(scene, objects=sorted(objects, key=lambda o: o.cell)))
            first += len(scene.objects)
        return found


def pixel_values(images: Sequence[np.ndarray], mean: float = 0.5, std: float = 0.25) -> Tensor:
    """Qwen2.5-VL's input for square images of one size, a multiple of CELL.

    (patches, 3 * 2 * 14 * 14), 2 x 2 neighbours next to each other.

    The same numbers as its processor makes, faster; the tests hold the two against each other.
    """
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
    grid = x.shape[-1] // CELL
    x = x.view(len(x), 3, grid, 2, PATCH, grid, 2, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return x.reshape(-1, 3, 1, PATCH, PATCH).expand(-1, 3, 2, PATCH, PATCH).reshape(-1, 3 * 2 * PATCH * PATCH)


def make_reasoner(tokenizer: Any, codebook: ConceptCodebook) -> Any:
    """A Qwen2_5_VLForConditionalGeneration of this shape, with fresh weights and the code in its embedding."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    token = tokenizer.convert_tokens_to_ids
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2_5_VLConfig(
        vision_config=VISION_CONFIG,
        text_config={**TEXT_CONFIG, "vocab_size": len(tokenizer), **ends},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        frame_side=SIDE,
        vqa_frame_side=SIDE,
    )
    config._attn_implementation = "sdpa"
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None, **ends)
    window_attention.install(model.model.visual)
    _write_code(model.get_input_embeddings().weight, tokenizer, codebook)
    return model


@torch.no_grad()
def _write_code(words: Tensor, tokenizer: Any, codebook: ConceptCodebook) -> None:
    """Words of the code get its vectors, and numbers that are near each other begin near each other."""
    draw = torch.Generator().manual_seed(280)
    words.normal_(0, WIDTH**-0.5, generator=draw)
    for i in range(len(words)):
        text = tokenizer.decode([i]).strip()
        if text in codebook.names:
            words[i] = codebook.names[text] + 0.2 * words[i]
    n, f = torch.linspace(0, 1, SIDE + 1)[:, None], 2 ** torch.arange(8).float()[None] * torch.pi
    waves = torch.cat([torch.sin(n * f), torch.cos(n * f), n, 1 - n], 1)
    waves = waves @ torch.randn(waves.shape[1], WIDTH, generator=draw)
    waves = waves / waves.norm(dim=1, keepdim=True).mean()
    for end in (",", ""):
        ids = tokenizer.convert_tokens_to_ids([f"{i}{end}" for i in range(SIDE + 1)])
        words[ids] = waves + 0.2 * WIDTH**-0.5 * torch.randn(1, WIDTH, generator=draw)


def make_vision_tower() -> torch.nn.Module:
    """The vision tower, with fresh weights."""
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    config = Qwen2_5_VLVisionConfig(**VISION_CONFIG)
    tower = Qwen2_5_VisionTransformerPretrainedModel(config)
    window_attention.install(tower)
    return tower


def encode_images(tower: Any, images: Sequence[np.ndarray]) -> Tensor:
    """(images * cells, WIDTH): the vision tokens of square images of one size, as the language model gets them."""
    weight = tower.patch_embed.proj.weight
    # the convolution over whole patches is a matrix product, and far faster as one
    tower.patch_embed.forward = lambda x: torch.nn.functional.linear(x, weight.flatten(1))
    patches = images[0].shape[0] // PATCH
    grid = torch.tensor([[1, patches, patches]] * len(images))
    with loop.mixed_precision():
        return tower(pixel_values(images), grid_thw=grid).pooler_output.float().view(-1, WIDTH)
