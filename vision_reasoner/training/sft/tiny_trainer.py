"""Supervised adaptation of VisionReasoner-Tiny to annotated photographs with classes that it does not know.

A loss on replies alone does not teach it to look. Its tower learns, as a dense detector, what each cell of a photograph
shows; then, in the last third of the steps (all, with a frozen tower), the language model learns requests, on what the
tower sees. New classes get vectors of the code that are free, and tokens of their own. Scenes are mixed in, so that
little of what the checkpoint knows is forgotten.

Importing this needs the extra `.[train]`, and the drawings.
"""

import argparse
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import TrainingArguments

from vision_reasoner.errors import CheckpointError, DataError
from vision_reasoner.scenes.art import load_sprites
from vision_reasoner.scenes.requests import random_requests
from vision_reasoner.scenes.scene import Scene, random_scene
from vision_reasoner.seeds import seeded
from vision_reasoner.training.grpo.policies import ENDLESS, Policy, load_reasoner, table_rows
from vision_reasoner.training.runs import ADDED, RunTrainer, accumulation_of, run_config, train_run
from vision_reasoner.training.tiny import loop
from vision_reasoner.training.tiny.architecture import (
    CELLS,
    EMBEDDING_NOISE,
    SIDE,
    TEXT_CONFIG,
    WIDTH,
    CellTruth,
    ConceptCodebook,
    encode_images,
)
from vision_reasoner.training.tiny.detection import vision_loss
from vision_reasoner.training.tiny.examples import NONSENSE_SHARE, PREFIX_NOISE, SIGN_SHARE, ExampleEncoder
from vision_reasoner.training.tiny.objective import LanguageObjective
from vision_reasoner.training.tiny.photographs import (
    Photographs,
    View,
    cell_weights,
    objects_seen,
    photograph_requests,
    random_view,
    read_photographs,
)

LANGUAGE_FROM = 2 / 3  # of the steps; before, the tower learns
CLAIM_WEIGHT = 1.5  # F1 is highest where all that is more probable than half of it is claimed, here some 0.4
PHOTOGRAPH_REQUESTS, SCENE_REQUESTS = 3, 8  # asked of one picture, at most
MAX_TOKENS = 450  # for the requests of one photograph: 30 objects take 400
WARMUP_STEPS = 20
VIEW_WORKERS = 2  # processes that make views while a GPU learns; on a CPU it does both
FLIPS = {"none": (), "horizontal": ("horizontal",), "both": ("horizontal", "vertical")}
SHOWN = {
    "loss": "loss",
    "class": "classes right",
    "sides": "pixels off",
    "objectness": "objectness",
    "px": "pixels off",
    "next": "lists go on right",
    "count": "counts right",
}


class Views(Dataset[View]):
    """Random views of photographs without end; number `i` is always the same."""

    def __init__(self, photographs: Photographs, seed: int, flips: Sequence[str]) -> None:
        self.photographs, self.seed, self.flips = photographs, seed, flips

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, i: int) -> View:
        n = len(self.photographs.scenes)
        turn, place = divmod(i, n)  # each photograph once before any comes again
        number = seeded("order", self.seed, turn).sample(range(n), n)[place]
        return random_view(self.photographs, number, seeded("view", self.seed, i), self.flips)


def together(views: Sequence[View]) -> dict[str, Sequence[View]]:
    """A batch, as the Trainer hands it on."""
    return {"views": views}


class Optimizers(torch.optim.Optimizer):
    """Several optimizers as one, as the Trainer wants it."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([p for part in parts for group in part.param_groups for p in group["params"]], {})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:
        """One step of each, by the mean gradient of all processes: the losses do not go through the wrapped model."""
        loop.all_reduce_gradients([p for group in self.param_groups for p in group["params"]])
        for part in self.parts:
            part.step(closure)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


class TinyTrainer(RunTrainer):
    """transformers' trainer with the losses of the stages that made VisionReasoner-Tiny."""

    best_by = "eval_f1"
    shown = SHOWN
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self, policy: Policy, photographs: Photographs, settings: argparse.Namespace, config: TrainingArguments
    ) -> None:
        self.begin_run(policy, settings)
        self.photographs = photographs
        with config.device:
            self.codebook = ConceptCodebook(photographs.added)
            encoder = ExampleEncoder(
                policy.processing.tokenizer, PREFIX_NOISE, NONSENSE_SHARE, self.codebook, MAX_TOKENS
            )
            self.objective = LanguageObjective(policy.model, None, encoder, self.codebook)
        self.sprites = load_sprites()
        self.figures: dict[str, list[float]] = {}  # since they were last logged
        self.counted_step, self.batches = -1, 0  # of a step, those that have gone through the model
        super().__init__(
            model=policy.model,
            args=config,
            train_dataset=Views(photographs, settings.seed, FLIPS[settings.flips]),
            eval_dataset=[],
            data_collator=together,
        )
        self.watch_run()

    def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
        """Muon and AdamW, as the stages have them, for each half of the model."""
        if self.optimizer is None:
            parts = []
            for half, first, last in self._halves():
                for part in loop.make_optimizers([half], self.args.learning_rate):
                    for group in part.param_groups:
                        group["steps"] = first, last
                    parts.append(part)
            self.optimizer = Optimizers(parts)
        return self.optimizer

    def create_scheduler(
        self,
        num_training_steps: int,  # noqa: ARG002 - it is max_steps
        optimizer: torch.optim.Optimizer | None = None,
    ) -> LambdaLR:
        """Warmup, and a linear decay to 0, over the steps in which a half of the model learns."""
        if self.lr_scheduler is None:
            optimizer = optimizer or self.create_optimizer()
            self.lr_scheduler = LambdaLR(optimizer, [partial(scale_of, *g["steps"]) for g in optimizer.param_groups])
        return self.lr_scheduler

    def _halves(self) -> list[tuple[torch.nn.Module, int, int]]:
        """What is trained, in turn: the first step of each, and the one after its last."""
        last = self.args.max_steps
        turn = 0 if self.settings.freeze == "vision" else round(LANGUAGE_FROM * last)
        halves = [(self.policy.model.model.visual, 0, turn), (self.policy.model.model.language_model, turn, last)]
        return [half for half in halves if half[1] < half[2]]

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:  # noqa: ARG002
        """The dense detector's loss, or in its turn the language model's, of views and of scenes."""
        step, number = self.state.global_step, self._number_of_batch()
        rng = seeded("sft", self.settings.seed, number)
        views: list[View] = inputs["views"]
        share = self.settings.rehearsed_share
        n_scenes = len(views) * share / (1 - share)  # a fraction where batches are small: some get one more
        scenes = [
            random_scene(self.sprites, rng, (SIDE, SIDE), sign_share=SIGN_SHARE)
            for _ in range(round((number + 1) * n_scenes) - round(number * n_scenes))
        ]
        with self.args.device:  # where tensors are made
            if step >= self._halves()[-1][1]:
                loss, figures = self._language_loss(views, scenes, rng)
            else:
                loss, figures = self._vision_loss(views, scenes)
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)
        return loss

    def _number_of_batch(self) -> int:
        """The number of the batch that goes through the model, of those of all steps and processes."""
        step, n = self.state.global_step, self.args.gradient_accumulation_steps
        self.batches = self.batches + 1 if step == self.counted_step else 0
        self.counted_step = step
        return (step * n + self.batches) * self.accelerator.num_processes + self.accelerator.process_index

    def _vision_loss(self, views: Sequence[View], scenes: Sequence[Scene]) -> loop.Losses:
        """The dense detector's loss on views of photographs and on scenes."""
        pictures = [view.scene for view in views] + list(scenes)
        tokens = encode_images(self.policy.model.model.visual, [scene.image for scene in pictures])
        truth = CellTruth([scene.objects for scene in pictures])
        claim_weight = torch.ones(len(tokens))
        claim_weight[: len(views) * CELLS] = CLAIM_WEIGHT
        weights = cell_weights(truth, len(views))
        return vision_loss(tokens, truth, self.codebook, weights, one_each=True, claim_weight=claim_weight)

    def _language_loss(self, views: Sequence[View], scenes: Sequence[Scene], rng: random.Random) -> loop.Losses:
        """The language model's losses on scenes, and on views of photographs as the tower sees them.

        It learns to say what the tower sees, claims of one object as one. From annotations it would learn to be unsure:
        where objects are crowded, people mark some and pass over others that look the same.
        """
        pictures = [view.scene for view in views] + list(scenes)
        with torch.no_grad():
            tokens = encode_images(self.policy.model.model.visual, [scene.image for scene in pictures])
        for k, of_picture in enumerate(tokens.view(len(pictures), CELLS, -1)[: len(views)]):
            pictures[k] = replace(pictures[k], objects=objects_seen(of_picture, self.codebook))
        truth = CellTruth([scene.objects for scene in pictures])
        truth.assign(tokens @ self.codebook.numbers[-1])
        assigned = truth.assigned_scenes(pictures)
        requests = [
            photograph_requests(replace(view, scene=scene), self.photographs.classes, rng, PHOTOGRAPH_REQUESTS)
            for view, scene in zip(views, assigned, strict=False)
        ]
        requests += [random_requests(scene, rng, SCENE_REQUESTS) for scene in assigned[len(views) :]]
        return self.objective.losses(assigned, requests, tokens, truth, cell_weights(truth, len(views)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The figures of the steps since the last time, too."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self.figures.items() if name != "loss"}
            self.figures = {}
        super().log(logs, start_time)


def scale_of(first: int, last: int, step: int) -> float:
    """The learning rate over its peak, of what learns from step `first` up to step `last`."""
    if not first <= step < last:
        return 0.0
    return min(1.0, (step - first + 1) / WARMUP_STEPS, (last - step) / (last - first))


# --- the model and its photographs ------------------------------------------------------------------------------------
def load_adapted(settings: argparse.Namespace) -> tuple[Policy, Photographs]:
    """VisionReasoner-Tiny, which new classes are added to, and the photographs.

    Raises:
        CheckpointError: the checkpoint is another model.
        DataError: the rows cannot be trained on, or the name of a class is a part of a known word.
    """
    policy = load_reasoner(settings)
    config = policy.model.config.get_text_config()
    if any(getattr(config, name) != TEXT_CONFIG[name] for name in ("hidden_size", "num_hidden_layers")):
        raise CheckpointError(f"{policy.folder}: is not VisionReasoner-Tiny; go without --preset tiny")
    known = getattr(policy.model.config, ADDED, ())
    rows, _ = table_rows(settings.data, settings.eval_data, settings.eval_n, None)
    photographs = read_photographs(map(rows.at, range(rows.n)), known)
    setattr(policy.model.config, ADDED, [c.name for c in photographs.added])  # so that vectors keep their classes
    add_names(policy, photographs)
    return policy, photographs


def add_names(policy: Policy, photographs: Photographs) -> None:
    """Give every new name a token, whose embedding begins at the vector of its class."""
    tokenizer, codebook = policy.processing.tokenizer, ConceptCodebook(photographs.added)
    new: list[str] = []
    for c in photographs.added:
        forms = (c.name, f" {c.name}", c.plural, f" {c.plural}")
        if any(len(tokenizer.encode(text)) > 1 for text in forms):
            new += [text for text in dict.fromkeys(forms) if text not in new]
    words = {tokenizer.decode([i]).strip() for i in range(tokenizer.vocab_size)}  # without what was added
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in new])
    whole = {text.strip() for text in tokenizer.get_added_vocab()}  # found before any part of them
    _check_parts(
        {text.strip() for text in new}, ({word for word in words if word.isalpha()} | codebook.names.keys()) - whole
    )
    policy.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embedding = policy.model.get_input_embeddings().weight
    draw = torch.Generator().manual_seed(280)
    with torch.no_grad():
        for text in new:
            own = torch.randn(WIDTH, generator=draw) * WIDTH**-0.5
            embedding[tokenizer.convert_tokens_to_ids(text)] = codebook.names[text.strip()] + EMBEDDING_NOISE * own


def _check_parts(new: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a new name inside a known word: its token would be read there, too, and the word not be known any more."""
    for name in sorted(new):
        if words := sorted(word for word in known if name in word):
            raise DataError(
                f'the name "{name}" is a part of "{words[0]}", a word that the checkpoint knows; give the class a '
                "longer one (training.prepare --rename OLD=NEW)"
            )


def training_arguments(settings: argparse.Namespace, *, first: bool) -> TrainingArguments:
    """transformers' settings; `first` says whether the run begins."""
    return TrainingArguments(
        output_dir=settings.output_dir,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=accumulation_of(settings),
        learning_rate=settings.lr,
        max_steps=settings.max_steps,
        max_grad_norm=loop.MAX_GRAD_NORM,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",  # `Views` is in random order
        dataloader_num_workers=VIEW_WORKERS if torch.cuda.is_available() else 0,
        **run_config(settings, first=first) | {"gradient_checkpointing": False},
    )


def train(settings: argparse.Namespace) -> Path:
    """Train as `settings` (see `sft.build_parser`) say; see `runs.train_run`."""
    found: list[Photographs] = []

    def load(settings: argparse.Namespace) -> Policy:
        policy, photographs = load_adapted(settings)
        found.append(photographs)
        if settings.batch_size > len(photographs.scenes):
            raise DataError(f"{len(photographs.scenes)} photographs are fewer than a step's --batch_size")
        return policy

    def make(policy: Policy, *, first: bool) -> TinyTrainer:
        return TinyTrainer(policy, found[0], settings, training_arguments(settings, first=first))

    return train_run(settings, load, make, scheduled=True)
