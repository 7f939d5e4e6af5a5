"""The losses of the language model, shared by the language and the joint stage.

The loss on the reply's tokens alone teaches the format and then, for thousands of steps, nothing about the image. What
makes the model attend to the image is supervision of every step from question to answer, where it should arise:

- TEXT_STATE: the class that is asked for, and which object is written next;
- CELL_STATE: each cell's class, position and box;
- RESPONSIBLE_STATES: whether each cell is the responsible one of its object;
- two heads of layer ATTENTION_LAYER attend to the object that is written, or that comes next, and to the first token
  where no further object exists; two others, from each responsible cell to the previous one of its class, so that
  the next object of a list is known by the previous one. The layer above attends to the object again;
- what these two layers read is supervised, too: class, color and company of the object;
- two heads of the layer below attend to what leads to the object: its place as the thinking wrote it, or another
  object ("what is left of the dog?").

The auxiliary heads are dropped after training.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from vision_reasoner.scenes.requests import NO_OBJECT, Request
from vision_reasoner.scenes.scene import Scene
from vision_reasoner.training.tiny import loop
from vision_reasoner.training.tiny.architecture import (
    CELL,
    CELLS,
    HEAD_DIM,
    NO_CLASS,
    SIDE,
    WIDTH,
    CellTruth,
    ConceptCodebook,
    cell_centers,
)
from vision_reasoner.training.tiny.examples import IGNORE, Batch, ExampleEncoder
from vision_reasoner.training.tiny.tokenizer import MAX_COUNT

TEXT_STATE, CELL_STATE = 2, 3  # hidden states that are supervised, of the text's tokens and of the cells
RESPONSIBLE_STATES = (2, 3)
ATTENTION_LAYER = 3
ATTENTION_LAYERS = (ATTENTION_LAYER - 1, ATTENTION_LAYER, ATTENTION_LAYER + 1)
SUPERVISED_HEADS = 2  # of a layer for each purpose; the others are free
LOGIT_SCALE = 6.0  # of products with unit vectors: 0 and 1 become confident logits
NUMBER_WEIGHT = 0.5  # of each of the two kinds of number tokens, so that both together weigh as much as words
NUMBER_SIGMA = 1.5  # pixels: how far off a number is still nearly right
RESPONSIBLE_WEIGHT = 10.0  # few cells are responsible
BACKGROUND_CELLS = 0.3  # share of background cells that predict their position: enough to learn it
MAX_ATTENTION_ROWS = 400  # tokens whose attention is supervised in a step: a sample is enough, and all are expensive

Part = tuple[Tensor, dict[str, Tensor]]  # a loss and its metrics


class AuxiliaryHeads(nn.Module):
    """Linear heads on hidden states, for training only. Classes and numbers are read in the model's own embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.cell_background = nn.Linear(WIDTH, 1)
        self.cell_class, self.cell_numbers = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 8 * WIDTH)
        self.text_class, self.text_ordinal = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.responsible = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in RESPONSIBLE_STATES)
        self.read = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.cell_previous, self.text_previous = nn.Linear(WIDTH, CELLS + 1), nn.Linear(WIDTH, CELLS + 1)


def soft_number_loss(logp: Tensor, truth: Tensor, sigma: float = NUMBER_SIGMA) -> Tensor:
    """Cross-entropy against a discrete Gaussian around the true number, (...): 101 instead of 100 is a small error.

    Args:
        logp: (..., SIDE + 1) log-probabilities of the numbers.
        truth: (...) the true numbers.
        sigma: standard deviation of the Gaussian.
    """
    w = torch.exp(-0.5 * ((torch.arange(SIDE + 1) - truth[..., None]) / sigma) ** 2)
    return -(w / w.sum(-1, keepdim=True) * logp).sum(-1)


class LanguageObjective:
    """The language model's losses on a batch of scenes; knows which layers are supervised by what.

    Without auxiliary heads the replies and what the heads of attention attend to are supervised, and no hidden states:
    enough for a model that has been trained with them.
    """

    def __init__(
        self, model: Any, heads: AuxiliaryHeads | None, encoder: ExampleEncoder, codebook: ConceptCodebook
    ) -> None:
        self.model, self.encoder, self.codebook = model, encoder, codebook
        self.heads: Any = heads
        self.projected: dict[tuple[int, str], Tensor] = {}
        for layer in ATTENTION_LAYERS:
            attention = model.model.language_model.layers[layer].self_attn
            for name in ("q", "k"):
                hook = partial(self._keep, (layer, name))
                getattr(attention, f"{name}_proj").register_forward_hook(hook)

    def _keep(self, name: tuple[int, str], module: Any, inputs: Any, output: Tensor) -> None:
        del module, inputs
        self.projected[name] = output.float()

    def losses(
        self,
        scenes: Sequence[Scene],
        requests: Sequence[Sequence[Request]],
        tokens: Tensor,
        truth: CellTruth,
        weights: Tensor | None = None,
    ) -> loop.Losses:
        """The sum of all losses, and the metrics.

        Args:
            scenes: with cells as the truth assigns them (`CellTruth.assigned_scenes`).
            requests: of each scene.
            tokens: (scenes * CELLS, WIDTH), from the vision tower or made from the truth.
            truth: of these cells.
            weights: (scenes * CELLS,), of the numbers of the object at each cell; None: all are alike.
        """
        with torch.device("cpu"):  # it is written value by value
            examples = [self.encoder.examples(s, row) for s, row in zip(scenes, requests, strict=True)]
            batch = Batch(self.encoder, examples)
        batch = batch.to(tokens.device)
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
        states = [state.float() for state in out.hidden_states]
        cells = [state[:, batch.start : batch.start + CELLS].reshape(-1, WIDTH) for state in states]
        rotary = self.model.model.language_model.rotary_emb(embedded, batch.positions)
        parts = [
            self._reply_loss(out.last_hidden_state.float(), batch, weights),
            *self._attention_losses(rotary, truth, batch),
        ]
        if self.heads is not None:
            parts += [
                self._cell_loss(words, cells[CELL_STATE], truth),
                *(
                    self._responsible_loss(cells[i], head, truth)
                    for i, head in zip(RESPONSIBLE_STATES, self.heads.responsible, strict=True)
                ),
                *self._order_losses(cells, states, truth, batch),
                self._text_loss(words, states[TEXT_STATE], batch),
                *(
                    self._read_loss(states[ATTENTION_LAYER + 1 + i], head, batch, truth)
                    for i, head in enumerate(self.heads.read)
                ),
            ]
        metrics = {k: v.item() for _, values in parts for k, v in values.items()}
        loss = torch.stack([part_loss for part_loss, _ in parts]).sum()
        return loss, {"loss": loss.item(), **metrics}

    def _unit(self, words: Tensor, rows: Tensor | slice) -> Tensor:
        """Scaled unit vectors of some words' embeddings, as columns."""
        return F.normalize(words[rows], dim=-1).T * LOGIT_SCALE

    def _norm(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, (WIDTH,))

    def _reply_loss(self, hidden: Tensor, batch: Batch, weights: Tensor | None) -> Part:
        """Next-token loss. Names, numbers, counts, whether the list goes on, and the rest have one mean each.

        In one mean over all tokens, the constant parts of a reply would drown those that matter.
        """
        keep = batch.labels != IGNORE
        labels, targets = batch.labels[keep], batch.target_cell[keep]
        logp = self.model.lm_head(hidden[keep]).log_softmax(-1)
        nll = -logp.gather(1, labels[:, None])[:, 0]
        right = logp.argmax(1) == labels
        of_tokens = torch.ones(len(labels))
        if weights is not None:
            cells = torch.arange(len(keep))[:, None] * CELLS + batch.target_cell
            of_tokens = torch.where(targets >= 0, weights[cells[keep].clamp(min=0)], of_tokens)
        loss, error, is_number = self._number_loss(logp, labels, of_tokens)
        e = self.encoder
        is_count = (labels >= e.count) & (labels <= e.count + MAX_COUNT)
        is_name = e.names[labels] | ((targets >= 0) & e.words[labels])  # what is asked for, or read off the image
        is_continuation = (targets != -1) & ~is_name & ~is_number & (labels != e.middle)
        rest = ~(is_number | is_count | is_name | is_continuation)
        metrics = {"px": error}
        groups = (("word", is_name), ("next", is_continuation), ("count", is_count), ("rest", rest))
        for name, group in groups:
            if group.any():
                loss = loss + nll[group].mean()
                metrics[name] = right[group].float().mean()
        return loss, metrics

    def _number_loss(self, logp: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted loss of coordinates, their median error in pixels, and which of the labels they are."""
        loss, is_number, errors = logp[:0].sum(), torch.zeros_like(labels, dtype=torch.bool), []  # 0 without any label
        for ids in (self.encoder.inner, self.encoder.last):
            value = torch.full((logp.shape[1],), -1)
            value[ids] = torch.arange(SIDE + 1)
            these = value[labels] >= 0
            is_number |= these
            if these.any():
                among = logp[these][:, ids]
                losses = soft_number_loss(among, value[labels[these]].float())
                loss = loss + NUMBER_WEIGHT * (weights[these] * losses).sum() / weights[these].sum()
                errors.append((among.argmax(1) - value[labels[these]]).abs().float())
        return loss, torch.cat(errors).median() if errors else logp.new_zeros(()), is_number

    def _cell_loss(self, words: Tensor, cells: Tensor, truth: CellTruth) -> Part:
        """Class and position of each cell, and box and point of its object."""
        there = truth.label < NO_CLASS
        center = cell_centers().repeat(len(cells) // CELLS, 1)
        where = (truth.numbers[:, :6] * CELL + center.repeat(1, 3)).clamp(0, SIDE)
        h = self._norm(cells)
        logits = self.heads.cell_class(h) @ self.codebook.classes[:NO_CLASS].T * LOGIT_SCALE
        logits = torch.cat([logits, self.heads.cell_background(h)], 1)
        some = there | (torch.rand(len(cells)) < BACKGROUND_CELLS)
        guess = self.heads.cell_numbers(h[some]).view(-1, 8, WIDTH) @ self._unit(words, self.encoder.inner)
        guess = guess.log_softmax(-1)
        loss = F.cross_entropy(logits, truth.label) + soft_number_loss(guess[:, 6:], center[some]).mean()
        metrics = {}
        if there.any():
            boxes, true_boxes = guess[there[some]][:, :6], where[there]
            loss = loss + soft_number_loss(boxes, true_boxes).mean()
            metrics["box px"] = (boxes[:, :4].argmax(-1) - true_boxes[:, :4]).abs().median()
        return loss, metrics

    def _responsible_loss(self, cells: Tensor, head: nn.Module, truth: CellTruth) -> Part:
        """Whether each cell is the responsible one of its object; the metric is F1."""
        logits = head(self._norm(cells))[:, 0]
        loss = RESPONSIBLE_WEIGHT * F.binary_cross_entropy_with_logits(logits, truth.responsible.float())
        claimed = logits > 0
        return loss, {
            "responsible": 2 * (claimed & truth.responsible).sum() / (claimed.sum() + truth.responsible.sum())
        }

    def _order_losses(
        self, cells: Sequence[Tensor], states: Sequence[Tensor], truth: CellTruth, batch: Batch
    ) -> list[Part]:
        """The previous cell of the same class: of each responsible cell, and of each token of a list."""
        own = self.heads.cell_previous(self._norm(cells[ATTENTION_LAYER + 1][truth.responsible]))
        listed = batch.previous_cell >= 0
        text = self.heads.text_previous(self._norm(states[ATTENTION_LAYER][listed]))
        return [
            self._classify("cell previous", own, truth.previous_responsible()),
            self._classify("text previous", text, batch.previous_cell[listed]),
        ]

    def _classify(self, name: str, logits: Tensor, truth: Tensor) -> Part:
        """Cross-entropy and accuracy."""
        if not len(truth):
            return logits.sum(), {}
        return F.cross_entropy(logits, truth), {name: (logits.argmax(1) == truth).float().mean()}

    def _text_loss(self, words: Tensor, hidden: Tensor, batch: Batch) -> Part:
        """The class that each token of a reply is about, and the ordinal of the object that it belongs to."""
        about, writing = batch.class_id >= 0, batch.ordinal >= 0
        if not about.any():
            return hidden.new_zeros(()), {}
        logits = self.heads.text_class(self._norm(hidden[about])) @ self.codebook.classes.T * LOGIT_SCALE
        loss, metrics = self._classify("text class", logits, batch.class_id[about])
        if writing.any():
            counts = self._unit(words, slice(self.encoder.count, self.encoder.count + MAX_COUNT + 1))
            logits = self.heads.text_ordinal(self._norm(hidden[writing])) @ counts
            ordinal_loss, accuracy = self._classify("text ordinal", logits, batch.ordinal[writing])
            loss, metrics = loss + ordinal_loss, {**metrics, **accuracy}
        return loss, metrics

    def _attention_losses(self, rotary: tuple[Tensor, Tensor], truth: CellTruth, batch: Batch) -> list[Part]:
        """What the supervised heads of ATTENTION_LAYERS attend to."""
        rotated = {layer: self._queries_and_keys(layer, rotary) for layer in ATTENTION_LAYERS}
        target = torch.where(batch.target_cell >= 0, batch.start + batch.target_cell, batch.target_cell)
        previous, of_cells = truth.previous_responsible(), torch.full_like(truth.label, -1)
        of_cells[truth.responsible] = torch.where(previous < CELLS, batch.start + previous, NO_OBJECT)
        chain = torch.full_like(target, -1)
        chain[:, batch.start : batch.start + CELLS] = of_cells.view(-1, CELLS)
        others = slice(SUPERVISED_HEADS, 2 * SUPERVISED_HEADS)
        return [
            self._attention_loss("attend anchor", rotated[ATTENTION_LAYER - 1], batch.anchor, batch),
            self._attention_loss("attend previous", rotated[ATTENTION_LAYER], chain, batch, others),
            *(
                self._attention_loss(f"attend target {layer}", rotated[layer], target, batch)
                for layer in (ATTENTION_LAYER, ATTENTION_LAYER + 1)
            ),
        ]

    def _queries_and_keys(self, layer: int, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """A layer's queries and keys, (scenes, heads, length, HEAD_DIM) each, with rotary positions applied."""
        q, k = (self.projected[layer, side].unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for side in "qk")
        q, k = apply_rotary_pos_emb(q, k, *rotary)
        return q, k

    def _attention_loss(
        self,
        name: str,
        rotated: tuple[Tensor, Tensor],
        places: Tensor,
        batch: Batch,
        heads: slice = slice(SUPERVISED_HEADS),
    ) -> Part:
        """Cross-entropy of some heads' attention.

        Args:
            name: of the metric.
            rotated: queries and keys.
            places: (scenes, length), the place in the row to attend to: NO_OBJECT for the first token, -1 for none.
            batch: what a token sees.
            heads: which ones.
        """
        q, k = rotated
        rows, at = (places != -1).nonzero(as_tuple=True)
        if not len(rows):
            return q.new_zeros(()), {}
        keep = torch.randperm(len(rows))[:MAX_ATTENTION_ROWS].sort().values  # scene by scene
        rows, at = rows[keep], at[keep]
        of_scenes = zip(q[:, heads], k[:, heads], at.split(rows.bincount(minlength=len(q)).tolist()), strict=True)
        z = torch.cat([torch.einsum("hnd,hld->nhl", qs[:, seen], ks) for qs, ks, seen in of_scenes]) / HEAD_DIM**0.5
        logp = z.masked_fill(~batch.mask[rows, 0, at][:, None], -1e9).log_softmax(-1)
        target = places[rows, at].clamp(min=0)
        right = logp[:, 0].argmax(-1) == target
        metrics = {f"{name} none": right[target == 0].float().mean()} if (target == 0).any() else {}
        if (target > 0).any():
            metrics[name] = right[target > 0].float().mean()
        return -logp.gather(2, target[:, None, None].expand(-1, SUPERVISED_HEADS, 1)).mean(), metrics

    def _read_loss(self, hidden: Tensor, head: nn.Module, batch: Batch, truth: CellTruth) -> Part:
        """Class, color and company of the object that each token of a reply attends to."""
        rows, at = (batch.target_cell >= 0).nonzero(as_tuple=True)
        cells = rows * CELLS + batch.target_cell[rows, at]
        read = head(self._norm(hidden[rows, at]))
        loss = hidden.new_zeros(())
        metrics: dict[str, Tensor] = {}
        groups = (
            ("class", truth.label, self.codebook.classes),
            ("color", truth.color, self.codebook.colors),
            ("company", truth.company, self.codebook.companies),
        )
        for name, index, vectors in groups:
            known = index[cells] >= 0
            if known.any():
                logits = read[known] @ vectors.T * LOGIT_SCALE
                part, accuracy = self._classify(f"read {name}", logits, index[cells][known])
                loss, metrics = loss + part, {**metrics, **accuracy}
        return loss, metrics
