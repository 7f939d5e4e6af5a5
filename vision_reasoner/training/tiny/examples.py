"""Training examples of the language model: scenes and requests as tokens, with what every token should attend to.

Several requests share one image: each sees the image and itself, at the positions that it would have alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from vision_reasoner.prompts import VISION_REASONER
from vision_reasoner.results import Task
from vision_reasoner.scenes.nonsense import random_letters
from vision_reasoner.scenes.requests import NO_OBJECT, Request, Span, place_of
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject
from vision_reasoner.training.tiny.architecture import CANDIDATE_RADIUS, CELL, CELLS, SIDE, ConceptCodebook
from vision_reasoner.training.tiny.tokenizer import FIRST, LAST, MIDDLE, NEXT, NOTHING, THINK, coordinates

SIGN_SHARE = 0.25  # of scenes with a company's sign: names are the hardest to read
PREFIX_NOISE = 0.1  # share of listed places that are replaced in the input, see `ExampleEncoder`
NONSENSE_SHARE = 0.2  # of requests with a nonsense word: people's requests contain words that no wording here does
NONSENSE_AMONG = 4  # it is inserted among this many first words, where a request names its object
MAX_TOKENS = 300  # for the requests of one scene, see `ExampleEncoder`
MAX_CACHED_TEXTS = 50_000  # queries are endless; texts of thinking and answers are few
IGNORE = -100  # the label of tokens that are not predicted


@dataclass
class Example:
    """One request with its reply as tokens. Every list has one entry per token of the reply, but `prompt`.

    Attributes:
        prompt: token ids up to the reply.
        reply: token ids to predict, end of sequence included.
        inputs: token ids that later tokens see as the reply so far; differs from `reply` where noise was added.
        target_cell: cell to attend to when the token is written, NO_OBJECT for the first token, -1 for none.
        class_id: class that the token is about, -1 for none.
        ordinal: index of the object that is written among those of its list, -1 outside of objects.
        anchor: what to attend to before the target: a cell, or CELLS + i for token i of prompt and reply; -1 for none.
        previous_cell: cell of the previous object of the list, CELLS for the first one, -1 outside of the thinking's
            lists.
    """

    prompt: list[int]
    reply: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    target_cell: list[int] = field(default_factory=list)
    class_id: list[int] = field(default_factory=list)
    ordinal: list[int] = field(default_factory=list)
    anchor: list[int] = field(default_factory=list)
    previous_cell: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """The number of tokens in a batch: the reply's last token is predicted, but is no input."""
        return len(self.prompt) + len(self.reply) - 1

    def add(
        self,
        ids: Sequence[int],
        target_cell: int = -1,
        class_id: int = -1,
        ordinal: int = -1,
        anchor: int = -1,
        previous_cell: int = -1,
    ) -> None:
        """Append tokens to the reply that share all annotations."""
        n = len(ids)
        self.reply += ids
        self.inputs += ids
        self.target_cell += [target_cell] * n
        self.class_id += [class_id] * n
        self.ordinal += [ordinal] * n
        self.anchor += [anchor] * n
        self.previous_cell += [previous_cell] * n


class ExampleEncoder:
    """Encodes scenes and requests as examples; holds the tokenizer's ids. Noise comes from torch's global generator.

    Args:
        tokenizer: of the reasoner.
        prefix_noise: share of the places in a list that are replaced, in the input only, by a neighboring cell. Noise
            in the prefix makes decoding robust to its own errors (exposure bias): without it, after one wrong place
            an object is listed twice, or those after it never.
        nonsense_share: share of the requests that get a nonsense word.
        codebook: has the names; None: those of scenes.
        max_tokens: for the requests of one image: the longest row of a batch decides the cost of a step.
    """

    def __init__(
        self,
        tokenizer: Any,
        prefix_noise: float = 0.0,
        nonsense_share: float = 0.0,
        codebook: ConceptCodebook | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.tokenizer, self.prefix_noise, self.nonsense_share = tokenizer, prefix_noise, nonsense_share
        self.max_tokens = max_tokens
        self.cache: dict[str, list[int]] = {}
        self.head = self.encode(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        )
        self.tail = self.encode("<|im_end|>\n<|im_start|>assistant\n")
        self.image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        # ids of 0 … SIDE; they are not consecutive, because single digits are bytes of the BPE's own alphabet
        self.inner, self.last = (
            torch.tensor(tokenizer.convert_tokens_to_ids(coordinates(comma)), device="cpu") for comma in (True, False)
        )
        self.place_ends = set(self.last.tolist())
        self.count = self.encode(" 0")[0]  # the first of MAX_COUNT + 1 consecutive ids
        self.middle = self.encode(MIDDLE)[0]
        texts = [tokenizer.decode([i]).strip() for i in range(len(tokenizer))]
        self.words = torch.tensor([text.isalpha() for text in texts])
        names = (codebook or ConceptCodebook()).names
        self.names = torch.tensor([text in names for text in texts])
        self.compounds = {name for name in names if " " in name}

    def encode(self, text: str) -> list[int]:
        """The text's token ids."""
        ids = self.cache.get(text)
        if ids is None:
            ids = self.tokenizer.encode(text)
            if len(self.cache) < MAX_CACHED_TEXTS:
                self.cache[text] = ids
        return ids

    def examples(self, scene: Scene, requests: Sequence[Request]) -> list[Example]:
        """The examples of as many of the requests as fit into `max_tokens`, the first in any case."""
        kept: list[Example] = []
        used = 0
        for request in requests:
            example = self.example(scene, request)
            if not kept or used + len(example) <= self.max_tokens:
                kept.append(example)
                used += len(example)
        return kept

    def example(self, scene: Scene, request: Request) -> Example:
        """The request and its reply as tokens."""
        cells = [o.cell[0] * GRID + o.cell[1] for o in scene.objects]
        query = self._with_nonsense_word(request.query) if torch.rand(()) < self.nonsense_share else request.query
        is_vqa = request.task is Task.VQA
        text = query if is_vqa else VISION_REASONER.text_for(query)
        example = Example(self.encode("<|vision_end|>") + self.encode(text) + self.tail)
        if is_vqa:
            assert request.answer is not None
            self._add_spans(example, scene, (request.answer,), cells)
        else:
            example.add(self.encode(THINK))
            mentioned = self._add_spans(example, scene, request.thinking, cells)
            self._add_answer(example, scene, request.targets, cells, mentioned)
        example.add([self.tokenizer.eos_token_id])
        return example

    def _add_spans(self, example: Example, scene: Scene, spans: Sequence[Span], cells: Sequence[int]) -> dict[int, int]:
        """Add the thinking, or the answer to a question.

        Returns:
            For each object whose place was written: the last token of that place, as an `anchor`.
        """
        mentioned: dict[int, int] = {}
        listed: dict[int, int] = {}  # cells of the current list's objects, by ordinal
        for span in spans:
            annotations: dict[str, int] = {}
            if span.class_id is not None:
                annotations["class_id"] = span.class_id
            if span.anchor is not None:
                annotations["anchor"] = cells[span.anchor]
            if span.ordinal is not None:
                annotations["ordinal"] = span.ordinal
                if span.target is not None:
                    annotations["previous_cell"] = listed[span.ordinal - 1] if span.ordinal else CELLS
            if span.target == NO_OBJECT:
                annotations["target_cell"] = NO_OBJECT
            elif span.target is not None:
                annotations["target_cell"] = cells[span.target]
                annotations.setdefault("class_id", scene.objects[span.target].label)
                if span.ordinal is not None:
                    listed[span.ordinal] = cells[span.target]
            example.add(self.encode(span.text), **annotations)
            if span.target is None or example.reply[-1] not in self.place_ends:
                continue
            if span.ordinal is not None and torch.rand(()) < self.prefix_noise:
                wrong = self.encode(self._neighboring_place(scene.objects[span.target]))
                example.inputs[-len(wrong) :] = wrong
            mentioned[span.target] = CELLS + len(example.prompt) + len(example.reply) - 1
        return mentioned

    def _add_answer(
        self, example: Example, scene: Scene, targets: Sequence[int], cells: Sequence[int], mentioned: dict[int, int]
    ) -> None:
        """Add the JSON list of boxes and points."""
        if not targets:
            example.add(self.encode(NOTHING), NO_OBJECT)
            return
        counts: dict[int, int] = {}
        for k, i in enumerate(targets):
            o = scene.objects[i]
            ordinal = counts[o.label] = counts.get(o.label, -1) + 1
            annotations = cells[i], o.label, ordinal, mentioned.get(i, -1)
            *inner, last = o.box.inclusive
            example.add(self.encode(NEXT if k else FIRST), *annotations)
            example.add([*self.inner[inner].tolist(), int(self.last[last])], *annotations)
            example.add(self.encode(MIDDLE), *annotations)
            example.add([int(self.inner[o.point.x]), int(self.last[o.point.y])], *annotations)
        example.add(self.encode(LAST), NO_OBJECT, scene.objects[targets[-1]].label)

    def _with_nonsense_word(self, query: str) -> str:
        """The query with random letters among its first words; names of two words stay together."""
        words = query.split(" ")
        word = random_letters(lambda n: int(torch.randint(n, ())))
        at = int(torch.randint(min(NONSENSE_AMONG, len(words)) + 1, ()))
        while 0 < at < len(words) and f"{words[at - 1]} {words[at]}".strip("?.,") in self.compounds:
            at -= 1
        return " ".join([*words[:at], word, *words[at:]])

    def _neighboring_place(self, o: SceneObject) -> str:
        """The place of another candidate cell of the object, if there is one."""
        across, down = (o.box.x1 + o.box.x2) / 2 / CELL, (o.box.y1 + o.box.y2) / 2 / CELL
        rows, columns = (
            [k for k in range(GRID) if abs(k + 0.5 - center) <= CANDIDATE_RADIUS] for center in (down, across)
        )
        cells = [(r, c) for r in rows for c in columns if (r, c) != o.cell] or [o.cell]
        return place_of(cells[int(torch.randint(len(cells), ()))], SIDE)


class Batch:
    """Scenes and their examples as tensors, (scenes, length) each; a row is the image, then its requests one by one.

    Attributes:
        ids: input token ids; those of the image are placeholders.
        positions: (3, scenes, length), the multimodal rotary positions of time, row and column.
        mask: (scenes, 1, length, length) bool, true where a token (third axis) sees another one (last axis).
        labels: at each token, the one that follows it in a reply; IGNORE elsewhere.
        target_cell, class_id, ordinal, previous_cell: annotations of the label, see `Example`; -1 elsewhere.
        anchor: the same as a place in the row.
        start: the place of the first cell in each row.
    """

    def __init__(self, encoder: ExampleEncoder, examples: Sequence[Sequence[Example]]) -> None:
        head = len(encoder.head)
        length = head + CELLS + max(sum(map(len, row)) for row in examples)
        shape = len(examples), length
        self.start = head
        self.ids = torch.zeros(shape, dtype=torch.long)
        self.labels = torch.full(shape, IGNORE)
        self.target_cell, self.class_id, self.ordinal, self.anchor, self.previous_cell = (
            torch.full(shape, -1) for _ in range(5)
        )
        part = torch.zeros(shape, dtype=torch.long)  # 0 is the image, k the k-th request, -1 padding
        place = torch.zeros(shape, dtype=torch.long)
        place[:, :head] = torch.arange(head)
        for b, row in enumerate(examples):
            self.ids[b, :head] = torch.tensor(encoder.head)
            self.ids[b, head : head + CELLS] = encoder.image_id
            at = head + CELLS
            for k, example in enumerate(row, 1):
                end = at + len(example)
                self._fill(b, at, example)
                part[b, at:end] = k
                place[b, at:end] = head + GRID + torch.arange(len(example))
                at = end
            part[b, at:] = -1
        self.positions = place.expand(3, -1, -1).clone()
        cells = torch.arange(CELLS)
        grid = torch.stack([torch.zeros_like(cells), cells // GRID, cells % GRID]) + head
        self.positions[:, :, head : head + CELLS] = grid[:, None]
        visible = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        self.mask = (visible & causal)[:, None]

    def to(self, device: torch.device) -> Self:
        """The same tensors on a device."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device))
        return self

    def _fill(self, b: int, at: int, example: Example) -> None:
        """Write one example into row b, from place `at` on."""
        end, first = at + len(example), at + len(example.prompt) - 1
        self.ids[b, at:end] = torch.tensor(example.prompt + example.inputs[:-1])
        self.labels[b, first:end] = torch.tensor(example.reply)
        for name in ("target_cell", "class_id", "ordinal", "anchor", "previous_cell"):
            getattr(self, name)[b, first:end] = torch.tensor(getattr(example, name))
        anchor = self.anchor[b, first:end]
        anchor += torch.where(anchor < CELLS, self.start, at - CELLS) * (anchor >= 0)
