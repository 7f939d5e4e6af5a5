"""Stage 2: the language model alone, on vision tokens made from the truth; and the losses shared with the joint stage.

    python -m vision_reasoner.training.tiny.language --minutes 60
    python -m vision_reasoner.training.tiny.language --minutes 60 --seen   # then: on what the trained vision tower sees

The loss on the reply's tokens alone teaches the format and then, for thousands of steps, nothing of the image. What
makes the model look is being taught every part of the way from question to answer where it should arise: the class
asked and which object is due (hidden state TELL); each cell's class, place and box (SEE) and whether it is a home
(HOMES). Two heads of layer FIND look at the object that is written, or that comes next, and at the first token where no
further one comes; two others, from each home to the one before it of its class. So what comes next in a list is known
by what it comes after, and layer FIND + 1 looks again; what both bring is taught too. Two heads of the layer before
look at what leads there: the object's place as the thinking has said it, or another object ("what is left of the
dog?"). The teaching heads are dropped afterwards.

Several requests share one image: each sees the image and itself, at the positions it would have alone.
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from vision_reasoner.cli import make_parser
from vision_reasoner.errors import VisionReasonerError
from vision_reasoner.prompts import VISION_REASONER
from vision_reasoner.results import Task
from vision_reasoner.scenes.art import load_sprites
from vision_reasoner.scenes.requests import NO_OBJECT, Request, Span, place_of, random_requests
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject, random_scene
from vision_reasoner.training.tiny.architecture import (
    CANDIDATE_RADIUS,
    CELL,
    CELLS,
    HEAD_DIM,
    NO_CLASS,
    SIDE,
    WIDTH,
    CellTruth,
    ConceptCodebook,
    encode_images,
    loop,
    make_reasoner,
)
from vision_reasoner.training.tiny.options import add_training_options
from vision_reasoner.training.tiny.tokenizer import (
    FIRST,
    LAST,
    MIDDLE,
    MOST,
    NEXT,
    NOTHING,
    THINK,
    build_tokenizer,
    coordinates,
)

TELL, SEE = 2, 3  # hidden states taught about the text, about cells
HOMES = (2, 3)  # about which cells are homes
FIND = 3  # the layer that looks; the one before finds the way there, the one after looks again
ATTENDING = (FIND - 1, FIND, FIND + 1)
TAUGHT_HEADS = 2
IGNORE = -100
PREFIX_NOISE = 0.1  # of the places that a training lesson lists
NONSENSE_SHARE = 0.2  # of the requests, with a word that means nothing
LETTERS = "eeettaaooiinnsshhrrddlluucmwfgypbvkjxqz"  # of such a word; the common ones more often
SIGNS = 0.25  # share of scenes with a company's sign, for names are the hardest to read
ROOM = 300  # tokens for the requests of one image: the longest row of a batch decides what a step costs


@dataclass
class Example:
    """One request with its reply as tokens; every list has one entry per token of the reply.

    Attributes:
        prompt: token ids up to the reply.
        reply: token ids, the end included.
        read: what is read back as the reply so far; differs from `reply` where a slip of the pen is.
        look: cell to look at when the token is written, NOWHERE for the first token, -1 for none.
        asked: class it is about, -1 for none.
        nth: number of the object being written among those of its list, -1 outside objects.
        via: where to look first: a cell, or CELLS and more for a token of prompt and reply; -1 for none.
        after: cell of the object before it in its list, CELLS for the first one, -1 outside the lists of the thinking.
    """

    prompt: list[int]
    reply: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    target_cell: list[int] = field(default_factory=list)
    class_id: list[int] = field(default_factory=list)
    ordinal: list[int] = field(default_factory=list)
    anchor: list[int] = field(default_factory=list)
    previous_cell: list[int] = field(default_factory=list)

    def add(
        self,
        ids: Sequence[int],
        target_cell: int = -1,
        class_id: int = -1,
        ordinal: int = -1,
        anchor: int = -1,
        previous_cell: int = -1,
    ) -> None:
        for i in ids:
            self.reply.append(i)
            self.read.append(i)
            self.target_cell.append(target_cell)
            self.class_id.append(class_id)
            self.ordinal.append(ordinal)
            self.anchor.append(anchor)
            self.previous_cell.append(previous_cell)


class ExampleEncoder:
    """Turns scenes and requests into lessons and batches of tensors; holds the tokenizer's ids.

    Args:
        tokenizer: of the reasoner.
        slips: share of the places in a list that are read back as a cell next to the object's home. Whoever has never
            seen a mistake is lost after the first of his own: an object is listed twice, or those after it never.
        strange: share of the requests with a word that means nothing: people say more than the wordings here do.
    """

    def __init__(self, tokenizer: Any, prefix_noise: float = 0.0, nonsense_share: float = 0.0) -> None:
        self.tokenizer, self.prefix_noise, self.nonsense_share = tokenizer, prefix_noise, nonsense_share
        self.known: dict[str, list[int]] = {}
        self.head = self.encode(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        )
        self.tail = self.encode("<|im_end|>\n<|im_start|>assistant\n")
        self.image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        # ids of 0 … SIDE; the digits are bytes of the BPE's own alphabet, so these ids do not all follow each other
        self.inner, self.last = (
            torch.tensor(tokenizer.convert_tokens_to_ids(coordinates(comma))) for comma in (True, False)
        )
        self.places = set(self.last.tolist())
        self.count = self.encode(" 0")[0]  # first of MOST + 1
        self.middle = self.encode(MIDDLE)[0]
        texts = [tokenizer.decode([i]).strip() for i in range(len(tokenizer))]
        self.words = torch.tensor([text.isalpha() for text in texts])
        names = ConceptCodebook().names
        self.names = torch.tensor([text in names for text in texts])
        self.compounds = {name for name in names if " " in name}

    def encode(self, text: str) -> list[int]:
        if text not in self.known:
            ids = self.tokenizer.encode(text)
            if len(self.known) > 50_000:
                return ids
            self.known[text] = ids
        return self.known[text]

    def example(self, scene: Scene, request: Request) -> Example:
        objects = scene.objects
        cell = [o.cell[0] * GRID + o.cell[1] for o in objects]
        query = self._with_nonsense_word(request.query) if torch.rand(()) < self.nonsense_share else request.query
        if request.task is Task.VQA:
            assert request.answer is not None
            spans: tuple[Span, ...] = (request.answer,)
            text = query
        else:
            spans, text = request.thinking, VISION_REASONER.text_for(query)
        example = Example(self.encode("<|vision_end|>") + self.encode(text) + self.tail)
        if request.task is not Task.VQA:
            example.add(self.encode(THINK))
        said: dict[int, int] = {}  # the token with which the place of an object was said
        listed: dict[int, int] = {}  # cells of the list's objects by number
        for span in spans:
            target_cell, about, previous_cell = span.target, span.class_id, None
            if span.ordinal is not None and target_cell is not None:
                previous_cell = listed[span.ordinal - 1] if span.ordinal else CELLS
            if target_cell is not None and target_cell != NO_OBJECT:
                about = objects[target_cell].label if about is None else about
                target_cell = cell[target_cell]
                if span.ordinal is not None:
                    listed[span.ordinal] = target_cell
            anchor = None if span.anchor is None else cell[span.anchor]
            told = (-1 if v is None else v for v in (target_cell, about, span.ordinal, anchor, previous_cell))
            example.add(self.encode(span.text), *told)
            if span.ordinal is not None and example.reply[-1] in self.places and torch.rand(()) < self.prefix_noise:
                assert span.target is not None
                slip = self.encode(self._beside(objects[span.target]))
                example.read[-len(slip) :] = slip
            if span.target is not None and example.reply[-1] in self.places:
                said[span.target] = CELLS + len(example.prompt) + len(example.reply) - 1
        if request.task is not Task.VQA:
            self._answer(example, scene, request.targets, cell, said)
        example.add([self.tokenizer.eos_token_id])
        return example

    def _with_nonsense_word(self, query: str) -> str:
        """The query with random letters among its first words; names of two words stay together."""
        words = query.split(" ")
        nonsense = "".join(LETTERS[k] for k in torch.randint(len(LETTERS), (int(torch.randint(2, 10, ())),)))
        at = int(torch.randint(min(4, len(words)) + 1, ()))
        while 0 < at < len(words) and f"{words[at - 1]} {words[at]}".strip("?.,") in self.compounds:
            at -= 1
        return " ".join([*words[:at], nonsense, *words[at:]])

    def _beside(self, o: SceneObject) -> str:
        """The place of another cell that is close to the object's centre, if there is one."""
        across, down = (o.box.x1 + o.box.x2) / 2 / CELL, (o.box.y1 + o.box.y2) / 2 / CELL
        rows, columns = (
            [k for k in range(GRID) if abs(k + 0.5 - centre) <= CANDIDATE_RADIUS] for centre in (down, across)
        )
        cells = [(r, c) for r in rows for c in columns if (r, c) != o.cell] or [o.cell]
        return place_of(cells[int(torch.randint(len(cells), ()))], SIDE)

    def examples(self, scene: Scene, requests: Sequence[Request]) -> list[Example]:
        """As many of the requests as there is ROOM for, the first in any case."""
        kept: list[Example] = []
        used = 0
        for request in requests:
            example = self.example(scene, request)
            length = len(example.prompt) + len(example.reply) - 1
            if not kept or used + length <= ROOM:
                kept.append(example)
                used += length
        return kept

    def _answer(
        self, example: Example, scene: Scene, targets: Sequence[int], cell: list[int], said: dict[int, int]
    ) -> None:
        if not targets:
            example.add(self.encode(NOTHING), NO_OBJECT)
        numbers: dict[int, int] = {}
        for k, i in enumerate(targets):
            o = scene.objects[i]
            ordinal = numbers[o.label] = numbers.get(o.label, -1) + 1
            here: dict[str, Any] = {
                "target_cell": cell[i],
                "class_id": o.label,
                "ordinal": ordinal,
                "anchor": said.get(i, -1),
            }
            example.add(self.encode(NEXT if k else FIRST), **here)
            *inner, last = o.box.inclusive
            example.add([*self.inner[inner].tolist(), int(self.last[last])], **here)
            example.add(self.encode(MIDDLE), **here)
            example.add([int(self.inner[o.point.x]), int(self.last[o.point.y])], **here)
        if targets:
            example.add(self.encode(LAST), NO_OBJECT, scene.objects[targets[-1]].label)


class Batch:
    """Scenes and their lessons as tensors, (scenes, length) each; row b is the image, then its requests one by one.

    Attributes:
        ids, positions (3, scenes, length), mask (scenes, 1, length, length).
        labels: at each token, the one that follows it in a reply; IGNORE elsewhere. look, asked, nth, via and after go
            with labels; look and after are cells, via is a place in the row.
    """

    def __init__(self, encoder: ExampleEncoder, examples: Sequence[Sequence[Example]]) -> None:
        head = len(encoder.head)
        length = head + CELLS + max(sum(len(x.prompt) + len(x.reply) - 1 for x in row) for row in examples)
        shape = len(examples), length
        self.start = head
        self.ids = torch.zeros(shape, dtype=torch.long)
        self.labels = torch.full(shape, IGNORE)
        self.target_cell, self.class_id, self.ordinal, self.anchor, self.previous_cell = (
            torch.full(shape, -1) for _ in range(5)
        )
        part = torch.zeros(shape, dtype=torch.long)
        place = torch.zeros(shape, dtype=torch.long)
        for b, row in enumerate(examples):
            self.ids[b, :head] = torch.tensor(encoder.head)
            self.ids[b, head : head + CELLS] = encoder.image
            at = head + CELLS
            for k, x in enumerate(row, 1):
                tokens = x.prompt + x.read[:-1]
                end, first = at + len(tokens), at + len(x.prompt) - 1
                self.ids[b, at:end] = torch.tensor(tokens)
                part[b, at:end] = k
                place[b, at:end] = head + GRID + torch.arange(len(tokens))
                for target, source in (
                    (self.labels, x.reply),
                    (self.target_cell, x.target_cell),
                    (self.class_id, x.class_id),
                    (self.ordinal, x.ordinal),
                    (self.anchor, x.anchor),
                    (self.previous_cell, x.previous_cell),
                ):
                    target[b, first:end] = torch.tensor(source)
                anchor = self.anchor[b, first:end]
                anchor += torch.where(anchor < CELLS, head, at - CELLS) * (anchor >= 0)
                at = end
            part[b, at:] = -1
        place[:, :head] = torch.arange(head)
        self.positions = place.expand(3, -1, -1).clone()
        cells = torch.arange(CELLS)
        grid = torch.stack([torch.zeros_like(cells), cells // GRID, cells % GRID]) + head
        self.positions[:, :, head : head + CELLS] = grid[:, None]
        same = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        self.mask = (same & causal)[:, None]


class AuxiliaryHeads(nn.Module):
    """What is asked of hidden states in training only; all of it in the model's own embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.seen_none = nn.Linear(WIDTH, 1)
        self.seen_class, self.seen_numbers = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 8 * WIDTH)
        self.said_class, self.said_nth = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.homes = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in HOMES)
        self.read = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.before, self.previous_cell = nn.Linear(WIDTH, CELLS + 1), nn.Linear(WIDTH, CELLS + 1)


def soft_number_loss(logp: Tensor, truth: Tensor, sigma: float = 1.5) -> Tensor:
    """Cross-entropy against a narrow Gaussian around the true number: 101 for 100 is nearly right."""
    w = torch.exp(-0.5 * ((torch.arange(SIDE + 1) - truth[..., None]) / sigma) ** 2)
    return -(w / w.sum(-1, keepdim=True) * logp).sum(-1).mean()


class LanguageObjective:
    """The language model's losses on a batch of scenes; knows where in the network each part is taught."""

    def __init__(self, model: Any, heads: AuxiliaryHeads, encoder: ExampleEncoder, codebook: ConceptCodebook) -> None:
        self.model, self.heads, self.encoder, self.codebook = model, heads, encoder, codebook
        self.projected: dict[tuple[int, str], Tensor] = {}
        for layer in ATTENDING:
            attention = model.model.language_model.layers[layer].self_attn
            for name in ("q", "k"):
                hook = partial(self._keep, (layer, name))
                getattr(attention, f"{name}_proj").register_forward_hook(hook)

    def _keep(self, name: tuple[int, str], module: Any, inputs: Any, output: Tensor) -> None:
        del module, inputs
        self.projected[name] = output.float()

    def losses(
        self, scenes: Sequence[Scene], requests: Sequence[Sequence[Request]], tokens: Tensor, truth: CellTruth
    ) -> loop.Losses:
        """How far the replies, and the hidden states on the way to them, are from what they should be.

        Args:
            scenes: settled as the truth is.
            requests: of each scene.
            tokens: (scenes * CELLS, WIDTH), seen or made from the truth.
            truth: of these cells.
        """
        batch = Batch(self.encoder, [self.encoder.examples(s, row) for s, row in zip(scenes, requests, strict=True)])
        words = self.model.get_input_embeddings().weight
        embedded = self.model.get_input_embeddings()(batch.ids).clone()
        embedded[:, batch.start : batch.start + CELLS] = tokens.view(len(scenes), CELLS, WIDTH)
        with loop.mixed_precision():
            out = self.model.model.language_model(
                inputs_embeds=embedded,
                position_ids=batch.positions,
                attention_mask={"full_attention": batch.mask},
                output_hidden_states=True,
                use_cache=False,
            )
        h = [state.float() for state in out.hidden_states]
        cells = [state[:, batch.start : batch.start + CELLS].reshape(-1, WIDTH) for state in h]
        turns = self.model.model.language_model.rotary_emb(embedded, batch.positions)
        turned = {layer: self._turned(layer, turns) for layer in ATTENDING}
        target_cell = torch.where(batch.target_cell >= 0, batch.start + batch.target_cell, batch.target_cell)
        before, listed = truth.previous_responsible(), batch.previous_cell >= 0
        place, follow = torch.full_like(truth.label, -1), torch.full_like(target_cell, -1)
        place[truth.responsible] = torch.where(before < CELLS, batch.start + before, NO_OBJECT)
        follow[:, batch.start : batch.start + CELLS] = place.view(-1, CELLS)
        parts = [
            self._reply(out.last_hidden_state.float(), batch),
            self._cells(words, cells[SEE], truth),
            *(self._homes(cells[i], head, truth) for i, head in zip(HOMES, self.heads.homes, strict=True)),
            self._order("before", self.heads.before(self._norm(cells[FIND + 1][truth.responsible])), before),
            self._order("after", self.heads.previous_cell(self._norm(h[FIND][listed])), batch.previous_cell[listed]),
            self._text(words, h[TELL], batch),
            self._look("via", turned[FIND - 1], batch.anchor, batch),
            self._look("follow", turned[FIND], follow, batch, slice(TAUGHT_HEADS, 2 * TAUGHT_HEADS)),
            *(self._look(f"look{i}", turned[i], target_cell, batch) for i in (FIND, FIND + 1)),
            *(self._read(h[FIND + 1 + i], head, batch, truth) for i, head in enumerate(self.heads.read)),
        ]
        seen = {k: v.item() for _, values in parts for k, v in values.items()}
        loss = torch.stack([p[0] for p in parts]).sum()
        return loss, {"loss": loss.item(), **seen}

    def _unit(self, words: Tensor, rows: Tensor | slice) -> Tensor:
        return F.normalize(words[rows], dim=-1).T * 6

    def _norm(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, (WIDTH,))

    def _reply(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Words, numbers, counts, whether to go on, and the rest weigh alike: in one mean what matters would drown."""
        keep = batch.labels != IGNORE
        y = batch.labels[keep]
        logp = self.model.lm_head(hidden[keep]).log_softmax(-1)
        nll = -logp.gather(1, y[:, None])[:, 0]
        t = self.encoder
        count = (y >= t.count) & (y <= t.count + MOST)
        looks = batch.target_cell[keep]
        right = logp.argmax(1) == y
        loss, number, errors = nll.new_zeros(()), torch.zeros_like(count), []
        for ids in (t.inner, t.last):
            value = torch.full((logp.shape[1],), -1)
            value[ids] = torch.arange(SIDE + 1)
            these = value[y] >= 0
            number |= these
            if these.any():
                among = logp[these][:, ids]
                loss = loss + 0.5 * soft_number_loss(among, value[y[these]].float())
                errors.append((among.argmax(1) - value[y[these]]).abs().float())
        word = t.names[y] | ((looks >= 0) & t.words[y])  # what is asked for, and what is read off the image
        going_on = (looks != -1) & ~word & ~number & (y != t.middle)  # whether there is a further object
        rest = ~(number | count | word | going_on)
        seen = {"px": torch.cat(errors).median() if errors else nll.new_zeros(())}
        for name, group in (("word", word), ("next", going_on), ("count", count), ("rest", rest)):
            if group.any():
                loss = loss + nll[group].mean()
                seen[name] = right[group].float().mean()
        return loss, seen

    def _cells(self, words: Tensor, cells: Tensor, truth: CellTruth) -> tuple[Tensor, dict[str, Tensor]]:
        """A middle layer knows each cell's class and place, and its object's box and point."""
        there = truth.label < NO_CLASS
        step = torch.arange(GRID) * CELL + CELL / 2
        centre = torch.stack([step[None].expand(GRID, GRID), step[:, None].expand(GRID, GRID)], -1).view(1, -1, 2)
        centre = centre.expand(len(cells) // CELLS, -1, -1).reshape(-1, 2)
        where = (truth.numbers[:, :6] * CELL + centre.repeat(1, 3)).clamp(0, SIDE)
        h = self._norm(cells)
        logits = torch.cat(
            [self.heads.seen_class(h) @ self.codebook.classes[:NO_CLASS].T * 6, self.heads.seen_none(h)], 1
        )
        # a third of the empty cells is enough to know their place
        some = there | (torch.rand(len(cells)) < 0.3)
        guess = self.heads.seen_numbers(h[some]).view(-1, 8, WIDTH) @ self._unit(words, self.encoder.inner)
        guess = guess.log_softmax(-1)
        loss = F.cross_entropy(logits, truth.label) + soft_number_loss(guess[:, 6:], centre[some])
        seen = {}
        if there.any():
            boxes, mine = guess[there[some]][:, :6], where[there]
            loss = loss + soft_number_loss(boxes, mine)
            seen["box px"] = (boxes[:, :4].argmax(-1) - mine[:, :4]).abs().median()
        return loss, seen

    def _homes(self, cells: Tensor, head: nn.Module, truth: CellTruth) -> tuple[Tensor, dict[str, Tensor]]:
        """Each cell knows whether it is where its object is listed."""
        homes = head(self._norm(cells))[:, 0]
        loss = 10.0 * F.binary_cross_entropy_with_logits(homes, truth.responsible.float())  # few cells are one
        return loss, {
            "home": 2 * ((homes > 0) & truth.responsible).sum() / ((homes > 0).sum() + truth.responsible.sum())
        }

    def _order(self, name: str, logits: Tensor, cells: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Homes know which one of their class is before them, and a list's tokens after which one they are."""
        if not len(cells):
            return logits.sum(), {}
        return F.cross_entropy(logits, cells), {name: (logits.argmax(1) == cells).float().mean()}

    def _text(self, words: Tensor, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Every token of a reply knows which class it is about, and the number of the object it writes."""
        about, writing = batch.class_id >= 0, batch.ordinal >= 0
        if not about.any():
            return hidden.new_zeros(()), {}
        said = self.heads.said_class(self._norm(hidden[about])) @ self.codebook.classes.T * 6
        loss = F.cross_entropy(said, batch.class_id[about])
        seen = {"asked": (said.argmax(1) == batch.class_id[about]).float().mean()}
        if writing.any():
            told, right = self._number(words, self.heads.said_nth(self._norm(hidden[writing])), batch.ordinal[writing])
            loss, seen = loss + told, {**seen, "said nth": right}
        return loss, seen

    def _number(self, words: Tensor, said: Tensor, ordinal: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of saying which of the objects of a class it is."""
        logits = said @ self._unit(words, slice(self.encoder.count, self.encoder.count + MOST + 1))
        return F.cross_entropy(logits, ordinal), (logits.argmax(1) == ordinal).float().mean()

    def _turned(self, layer: int, turns: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """A layer's queries and keys, (scenes, heads, length, HEAD_DIM) each, turned by their positions."""
        q, k = (self.projected[layer, side].unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for side in "qk")
        q, k = apply_rotary_pos_emb(q, k, *turns)
        return q, k

    def _look(
        self,
        name: str,
        turned: tuple[Tensor, Tensor],
        places: Tensor,
        batch: Batch,
        heads: slice = slice(TAUGHT_HEADS),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Heads of a layer look at the place in the row that is due, (scenes, length); at the first if NOWHERE."""
        q, k = turned
        rows, at = (places != -1).nonzero(as_tuple=True)
        if not len(rows):
            return q.new_zeros(()), {}
        keep = torch.randperm(len(rows))[:400]  # a sample is enough, and attention over every token is dear
        rows, at = rows[keep], at[keep]
        z = torch.einsum("nhd,nhld->nhl", q[rows, heads, at], k[rows, heads]) / HEAD_DIM**0.5
        logp = z.masked_fill(~batch.mask[rows, 0, at][:, None], -1e9).log_softmax(-1)
        target = places[rows, at].clamp(min=0)
        right = logp[:, 0].argmax(-1) == target
        seen = {f"{name} nowhere": right[target == 0].float().mean()} if (target == 0).any() else {}
        if (target > 0).any():
            seen[name] = right[target > 0].float().mean()
        return -logp.gather(2, target[:, None, None].expand(-1, TAUGHT_HEADS, 1)).mean(), seen

    def _read(
        self, hidden: Tensor, head: nn.Module, batch: Batch, truth: CellTruth
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Every token of a reply that looks at a cell knows the class, color and company there."""
        rows, at = (batch.target_cell >= 0).nonzero(as_tuple=True)
        cells = rows * CELLS + batch.target_cell[rows, at]
        said = head(self._norm(hidden[rows, at]))
        loss, seen = hidden.new_zeros(()), {}
        groups = (
            ("class", truth.label, self.codebook.classes),
            ("color", truth.color, self.codebook.colors),
            ("company", truth.company, self.codebook.companies),
        )
        for name, index, vectors in groups:
            due = index[cells]
            known = due >= 0
            if known.any():
                guess = said[known] @ vectors.T * 6
                loss = loss + F.cross_entropy(guess, due[known])
                seen[f"read {name}"] = (guess.argmax(1) == due[known]).float().mean()
        return loss, seen


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.language", __doc__)
    add_training_options(parser, minutes=60)
    parser.add_argument("--requests", type=int, default=10, help="requests per image, at most (%(default)s)")
    parser.add_argument("--seen", action="store_true", help="tokens of stage 1's vision tower, not made from the truth")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer, codebook, sprites = build_tokenizer(), ConceptCodebook(), load_sprites()
    model, heads = make_reasoner(tokenizer, codebook), AuxiliaryHeads()
    model.model.visual.requires_grad_(False)
    language = LanguageObjective(model, heads, ExampleEncoder(tokenizer, PREFIX_NOISE, NONSENSE_SHARE), codebook)
    if args.seen and not loop.resume(args.output_dir / "vision.pt", {"tower": model.model.visual}).step:
        raise VisionReasonerError(
            f"no vision tower in {args.output_dir}: run `python -m vision_reasoner.training.tiny.vision` first"
        )

    def step_losses(step: int) -> loop.Losses:
        rng = random.Random(args.seed * 2_000_003 + step)
        most = min(12, 4 + step // 60)  # few objects first
        scenes = [
            random_scene(sprites, rng, (SIDE, SIDE), max_objects=most, sign_share=SIGNS) for _ in range(args.batch_size)
        ]
        truth = CellTruth([s.objects for s in scenes])
        if args.seen:
            with torch.no_grad():
                tokens = encode_images(model.model.visual, [s.image for s in scenes])
        else:
            tokens = codebook.noisy_tokens(truth)
            tokens = tokens + 0.02 * torch.randn_like(tokens)
        truth.assign(tokens @ codebook.numbers[-1])
        scenes = truth.assigned_scenes(scenes)
        requests = [random_requests(s, rng, args.requests) for s in scenes]
        return language.losses(scenes, requests, tokens, truth)

    loop.train("language", {"language": model.model.language_model, "heads": heads}, step_losses, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
