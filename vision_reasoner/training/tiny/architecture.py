"""VisionReasoner-Tiny: the shape of its reasoner, and the interface between vision tower and language model.

The vision tower hands one token per 28 x 28 cell to the language model. The ideal token is fixed here: a sum of
orthonormal vectors, one for each class, color and company, and one for each number that says where the object is. The
words for a class have the same vector in the language model's embedding, so that an object and its name are similar
from the first step. Both halves can therefore be trained separately and then put together.

Each object is listed at one cell, its responsible cell (as in YOLO). Cells that are not far from the center are
candidates; a cell whose objectness is high claims the object; the first candidate that does is responsible.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_reasoner.errors import DataError
from vision_reasoner.models import window_attention
from vision_reasoner.scenes.classes import CLASSES, COLOR_INDEX, COLORS, COMPANIES, ObjectClass
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject
from vision_reasoner.training.tiny import loop

SIDE = 280  # the frame: 10 x 10 merged tokens of 28 pixels
CELL = SIDE // GRID
CELLS = GRID * GRID
PATCH = 14
WIDTH = 256  # of the language model, and of the tokens between the two
HEAD_DIM = 64
NUMBERS = 7  # x1 y1 x2 y2 and the point's x y, in cells from the cell's center; then objectness, 0 or 1
NO_CLASS = len(CLASSES)  # the label of background cells; classes that are added later follow it

# Distances from an object's center in x and in y, in cells
POSITIVE_RADIUS = 0.75  # cells within it have objectness 1: one, two or four cells per object
AMBIGUOUS_RADIUS = 0.55  # from here to the candidate radius a pixel would decide: the tower's own output counts
CANDIDATE_RADIUS = 1.0  # cells within it may become responsible

CLAIM = 0.5  # the objectness from which a cell claims an object
NUMBER_NOISE = 0.15  # standard deviation of a trained tower's numbers, roughly
EMBEDDING_NOISE = 0.2  # of a word's own part beside its concept: synonyms must stay distinguishable

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
    "num_attention_heads": WIDTH // HEAD_DIM,
    "num_key_value_heads": WIDTH // HEAD_DIM,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    # with a theta of 1e4 or more, ten rows and columns look alike; with 30, words cannot be found
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [2, 6, 24]},
}


class ConceptCodebook:
    """The vectors that vision tokens are sums of.

    Attributes:
        classes: (CLASSES + 1 + added, WIDTH), background after the classes of scenes, and then those that were added.
        colors: (COLORS, WIDTH).
        companies: (COMPANIES, WIDTH).
        numbers: (NUMBERS, WIDTH). All rows of the four together are orthonormal.
        names: the vector of each word for a class, color or company.
    """

    def __init__(self, added: Sequence[ObjectClass] = ()) -> None:
        """Of the classes of scenes and of `added` ones, whose vectors are those that nothing else takes.

        Raises:
            DataError: there are more than vectors are left.
        """
        groups = {"classes": len(CLASSES) + 1, "colors": len(COLORS), "companies": len(COMPANIES), "numbers": NUMBERS}
        # the seed is part of the architecture: other vectors would not fit the bundled weights
        with torch.device("cpu"):
            square = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(840), dtype=torch.float64)
            rows = torch.linalg.qr(square)[0].float()
        rows = rows.to(torch.get_default_device())
        taken = sum(groups.values())
        if len(added) > WIDTH - taken:
            raise DataError(f"{len(added)} new classes are too many for this model: at most {WIDTH - taken}")
        classes, self.colors, self.companies, self.numbers = rows[:taken].split(list(groups.values()))
        self.classes = torch.cat([classes, rows[taken : taken + len(added)]])
        self.names: dict[str, Tensor] = {}
        for vector, c in zip(self.classes, [*CLASSES, None, *added], strict=True):
            self.names |= {} if c is None else {c.name: vector, c.plural: vector}
        self.names |= {c: self.colors[i] for c, i in COLOR_INDEX.items()}
        self.names |= {c: self.companies[i] for i, c in enumerate(COMPANIES)}

    def tokens(self, truth: "CellTruth", numbers: Tensor | None = None) -> Tensor:
        """The ideal tokens, (cells, WIDTH).

        Args:
            truth: what the cells show.
            numbers: (cells, NUMBERS), instead of those of the truth.
        """
        there = (truth.label != NO_CLASS).float()[:, None]
        out = self.classes[truth.label] + there * ((truth.numbers if numbers is None else numbers) @ self.numbers)
        painted, written = truth.color >= 0, truth.company >= 0
        out[painted] += self.colors[truth.color[painted]]
        out[written] += self.companies[truth.company[written]]
        return out

    def noisy_tokens(self, truth: "CellTruth") -> Tensor:
        """Tokens as imprecise as a trained tower's: numbers have noise, the objectness of ambiguous cells is random.

        With ideal tokens a cell could tell from its own offset whether it is responsible, and a language model that
        relies on this fails with a real tower. With these it has to check whether an earlier cell claims the object.
        """
        numbers = truth.numbers.clone()
        random = torch.rand(len(numbers)) < 0.5
        numbers[:, -1] = torch.where(truth.ambiguous, random, truth.positive)
        return self.tokens(truth, numbers + NUMBER_NOISE * torch.randn_like(numbers))


class CellTruth:
    """What each cell of a batch of scenes shows. All tensors have one row per cell, scene by scene, row by row.

    Attributes:
        label: class; NO_CLASS for background.
        color, company: index, -1 for none.
        numbers: (cells, NUMBERS), see NUMBERS.
        owner: index of the object among all objects of the batch, -1 for none.
        positive: whether objectness is 1.
        candidate: whether the cell may become its owner's responsible cell.
        ambiguous: whether objectness is left to the tower.
        responsible: whether the cell is where its owner is listed and attended to, see `assign`.
    """

    def __init__(self, scenes: Sequence[Sequence[SceneObject]], grid: int = GRID) -> None:
        """Of scenes painted at CELL pixels per cell, `grid` x `grid` cells each; objects may extend beyond them."""
        shape = (len(scenes), grid, grid)
        label, color, company, owner = (np.full(shape, v) for v in (NO_CLASS, -1, -1, -1))
        positive, candidate, ambiguous = (np.zeros(shape, bool) for _ in range(3))
        numbers = np.zeros((*shape, NUMBERS), np.float32)
        first = 0
        for b, objects in enumerate(scenes):
            for part in ("body", "positive", "center"):  # in this order: neighbors do not hide an object altogether
                for i, o in enumerate(objects, first):
                    rows, columns = _cells_of(o, part, grid)
                    at = b, rows, columns
                    x, y = columns * CELL + CELL / 2, rows * CELL + CELL / 2
                    center_x, center_y = (o.box.x1 + o.box.x2) / 2, (o.box.y1 + o.box.y2) / 2
                    distance = np.maximum(np.abs(x - center_x), np.abs(y - center_y))
                    candidate[at] = distance <= CANDIDATE_RADIUS * CELL
                    ambiguous[at] = (distance > AMBIGUOUS_RADIUS * CELL) & (distance <= CANDIDATE_RADIUS * CELL)
                    answer = np.array((*o.box.inclusive, *o.point))  # the numbers that the language model writes
                    offsets = (answer - np.stack([x, y] * 3, 1)) / CELL
                    numbers[at] = np.concatenate([offsets, np.full((len(rows), 1), part != "body")], 1)
                    label[at] = o.label
                    color[at] = COLOR_INDEX[o.color] if o.color else -1
                    company[at] = COMPANIES.index(o.text) if o.text else -1
                    owner[at] = i
                    positive[at] = part != "body"
            first += len(objects)
        self.label, self.color, self.company, self.owner = (
            torch.as_tensor(v).flatten().long() for v in (label, color, company, owner)
        )
        self.numbers = torch.as_tensor(numbers).view(-1, NUMBERS)
        self.positive, self.candidate, self.ambiguous = (
            torch.as_tensor(v).flatten() for v in (positive, candidate, ambiguous)
        )
        self.assign(self.numbers[:, -1])

    def assign(self, objectness: Tensor) -> None:
        """Make the first candidate cell that claims an object, in reading order, responsible for it.

        If the cell that contains the center were responsible, a center on a border would be a coin toss, and the
        object would be listed twice or never. With this rule some cell always claims the object, and each cell can see
        whether an earlier one does.

        Args:
            objectness: (cells,), about 1 where the tokens say that an object's center is near, about 0 elsewhere; 0.5
                and more claims the object. Where no candidate claims it, the one with the highest value is responsible.
        """
        cells = self.candidate.nonzero()[:, 0]
        best = cells[self._highest(cells, objectness[cells].clamp(max=CLAIM))]
        first = cells.new_full((int(self.owner.max()) + 1,), len(self.owner))
        first = first.scatter_reduce(0, self.owner[best], best, "amin")
        self.responsible = torch.zeros_like(self.candidate)
        self.responsible[first[first < len(self.owner)]] = True

    def one_each(self, objectness: Tensor) -> Tensor:
        """Of each object the positive cell with the highest objectness, (cells,) bool.

        Args:
            objectness: (cells,), as `assign` has it.
        """
        cells = self.positive.nonzero()[:, 0]
        chosen = torch.zeros_like(self.positive)
        chosen[cells[self._highest(cells, objectness[cells])]] = True
        return chosen

    def _highest(self, cells: Tensor, value: Tensor) -> Tensor:
        """Which of some cells have the highest value of those of their object, (len(cells),) bool."""
        owner = self.owner[cells]
        highest = value.new_full((int(self.owner.max()) + 1,), -torch.inf).scatter_reduce(0, owner, value, "amax")
        return value == highest[owner]

    def previous_responsible(self) -> Tensor:
        """The responsible cell before each one, of the same class and scene; CELLS for the first one of a class.

        In the order of the responsible cells; as indices into the cells of a scene.
        """
        cells = self.responsible.nonzero()[:, 0]
        if not len(cells):
            return cells
        kind = cells // CELLS * (int(self.label.max()) + 1) + self.label[cells]
        same = torch.tril(kind[:, None] == kind, -1)
        last = (same * torch.arange(1, len(cells) + 1)).amax(1) - 1
        return torch.where(last < 0, CELLS, cells[last] % CELLS)

    def assigned_scenes(self, scenes: Sequence[Scene]) -> list[Scene]:
        """The scenes with each object's `cell` set to its responsible cell, and objects in the order of these.

        An object whose cells all belong to others, as in crowded photographs, is left out.
        """
        cells = self.responsible.nonzero()[:, 0]
        at = {owner: cell % CELLS for owner, cell in zip(self.owner[cells].tolist(), cells.tolist(), strict=True)}
        found, first = [], 0
        for scene in scenes:
            objects = [
                replace(o, cell=divmod(at[first + k], GRID)) for k, o in enumerate(scene.objects) if first + k in at
            ]
            found.append(replace(scene, objects=sorted(objects, key=lambda o: o.cell)))
            first += len(scene.objects)
        return found


def _cells_of(o: SceneObject, part: str, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cells that belong to a part of an object.

    Args:
        o: its box may extend beyond the grid.
        part: "body" for all candidate cells and those over the middle half of the box, "positive" for those within
            POSITIVE_RADIUS, "center" for the one that contains the center. The last two are empty where the center is
            outside the grid.
        grid: number of rows and columns.
    """
    x1, y1, x2, y2 = o.box
    row, column = (y1 + y2) // (2 * CELL), (x1 + x2) // (2 * CELL)
    if part != "body" and not (0 <= row < grid and 0 <= column < grid):
        return np.zeros(0, int), np.zeros(0, int)
    if part == "center":
        return np.array([row]), np.array([column])
    reach = (CANDIDATE_RADIUS if part == "body" else POSITIVE_RADIUS) * CELL
    across, down = ((x2 - x1) / 4, (y2 - y1) / 4) if part == "body" else (0, 0)
    centers = np.arange(grid) * CELL + CELL / 2
    near_x = np.abs(centers - (x1 + x2) / 2) <= max(reach, across)
    near_y = np.abs(centers - (y1 + y2) / 2) <= max(reach, down)
    rows, columns = np.where(near_y[:, None] & near_x[None])
    return rows, columns


def cell_centers() -> Tensor:
    """(CELLS, 2) x and y of the cells' centers in pixels of the frame, row by row."""
    step = torch.arange(GRID) * CELL + CELL / 2
    return torch.stack([step.repeat(GRID), step.repeat_interleave(GRID)], 1)


def pixel_values(images: Sequence[np.ndarray], mean: float = 0.5, std: float = 0.25) -> Tensor:
    """Qwen2.5-VL's input for square images of one size, a multiple of CELL.

    The same numbers as its image processor computes, but faster; a test compares the two.

    Args:
        images: (side, side, 3) uint8 each.
        mean, std: for all channels, as in `tokenizer.build_processor`.

    Returns:
        (patches, 3 * 2 * 14 * 14) float32, the patches of each 2 x 2 group next to each other.
    """
    x = torch.as_tensor(np.stack(images)).permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
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
    words = model.get_input_embeddings().weight
    with torch.device("cpu"), torch.no_grad():
        words.copy_(_first_embedding(tokenizer, codebook))
    return model


def _first_embedding(tokenizer: Any, codebook: ConceptCodebook) -> Tensor:
    """Words of the code get its vectors, and numbers that are near each other begin near each other."""
    draw = torch.Generator().manual_seed(280)
    words = torch.empty(len(tokenizer), WIDTH).normal_(0, WIDTH**-0.5, generator=draw)
    for i in range(len(words)):
        text = tokenizer.decode([i]).strip()
        if text in codebook.names:
            words[i] = codebook.names[text].cpu() + EMBEDDING_NOISE * words[i]
    n, f = torch.linspace(0, 1, SIDE + 1)[:, None], 2 ** torch.arange(8).float()[None] * torch.pi
    waves = torch.cat([torch.sin(n * f), torch.cos(n * f), n, 1 - n], 1)
    waves = waves @ torch.randn(waves.shape[1], WIDTH, generator=draw)
    waves = waves / waves.norm(dim=1, keepdim=True).mean()
    for end in (",", ""):
        ids = tokenizer.convert_tokens_to_ids([f"{i}{end}" for i in range(SIDE + 1)])
        words[ids] = waves + EMBEDDING_NOISE * WIDTH**-0.5 * torch.randn(1, WIDTH, generator=draw)
    return words


def make_vision_tower() -> torch.nn.Module:
    """The vision tower, with fresh weights."""
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    config = Qwen2_5_VLVisionConfig(**VISION_CONFIG)
    tower = Qwen2_5_VisionTransformerPretrainedModel(config)
    window_attention.install(tower)
    return tower


def encode_images(tower: Any, images: Sequence[np.ndarray]) -> Tensor:
    """The vision tokens of square images of one size as the language model gets them, (images * cells, WIDTH)."""
    weight = tower.patch_embed.proj.weight
    # a convolution whose kernel is a whole patch is a matrix product, which is much faster
    tower.patch_embed.forward = lambda x: torch.nn.functional.linear(x, weight.flatten(1))
    patches = images[0].shape[0] // PATCH
    grid = torch.tensor([[1, patches, patches]] * len(images))
    with loop.mixed_precision():
        return tower(pixel_values(images), grid_thw=grid).pooler_output.float().view(-1, WIDTH)
