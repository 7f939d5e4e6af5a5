"""How GRPO goes on: TRL's trainer, with what the rollouts of a prompt have in common computed once.

Departures from TRL's GRPOTrainer, none of which changes what is learnt but by rounding (the tests compare them):

- picture and prompt go through the model once for all their rollouts, both when these are sampled and when their
  likelihood is computed; TRL does so once for each. Replies are not padded;
- the rollouts of a prompt stay together in a forward pass, where TRL shuffles them. Without a KL term, those that are
  all worth the same have no gradient and are left out of it (and of the logged entropy), in one process;
- evaluation asks greedily, as the model is used, and the best checkpoint so far is written as `--model_path` takes it;
- what is evaluated and written can be the moving mean of the weights: steps are mostly noise, which it averages out;
- no telemetry is sent, and no model card written.

Importing this needs the extra `.[train]`.
"""

import argparse
import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, TrainerCallback
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations import TensorBoardCallback
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import pad, split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from vision_reasoner.errors import UsageError
from vision_reasoner.files import add_lines, keep_lines, whole_folder, write_whole
from vision_reasoner.models import window_attention
from vision_reasoner.models.checkpoints import RELEASED, is_bundle
from vision_reasoner.training.grpo.policies import Row, Rows, Subject, load_subject
from vision_reasoner.training.tiny.loop import denormals_flushed, has_bfloat16

logger = logging.getLogger(__name__)

LORA_TARGETS = r"(?!.*visual).*\.(q|k|v|o|gate|up|down)_proj"  # the vision tower has some of the same names
SAMPLES = 4  # replies that are logged at a time
# What a run that goes on may have changed; every other setting decides what is learnt.
FREE_SETTINGS = {"max_steps", "sample_every", "threads", "verbose", "quiet", "output_dir"}


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer with room to grow: DynamicLayer copies all that it holds for every new token."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add (batch, heads, new, width) keys and values; returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self.rooms = (self.keys, self.values)
        old, new = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        held = (self.keys, self.values)
        rooms = [
            room
            if kept.data_ptr() == room.data_ptr() and new <= room.shape[2]  # not after rows were left out
            else torch.cat([kept, kept.new_empty(*kept.shape[:2], 2 * new - old, kept.shape[3])], dim=2)
            for kept, room in zip(held, self.rooms, strict=True)
        ]
        for room, states in zip(rooms, (key_states, value_states), strict=True):
            room[:, :, old:new] = states
        self.rooms = (rooms[0], rooms[1])
        self.keys, self.values = (room[:, :, :new] for room in rooms)
        return self.keys, self.values


class Mean(TrainerCallback):
    """The moving mean of the weights that are trained.

    Early in a run it is of all steps so far, so that it does not cling to the beginning.
    """

    FILE = "mean.safetensors"  # of a checkpoint

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.means = {name: value.detach().clone() for name, value in self.weights.items()}
        self.decay = decay

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take the new weights in."""
        share = max(1 - self.decay, 1 / (state.global_step + 1))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.means.values()), list(self.weights.values()), share)

    def swap(self) -> None:
        """Put the means where the weights are and the weights where the means are."""
        for name, value in self.weights.items():
            self.means[name], value.data = value.data, self.means[name]

    def save(self, folder: Path) -> None:
        """Write the means into a checkpoint."""
        save_file(self.means, folder / self.FILE)

    def load(self, folder: Path) -> None:
        """Read the means of a checkpoint."""
        for name, value in load_file(folder / self.FILE).items():
            self.means[name].copy_(value)


class Trainer(GRPOTrainer):
    """TRL's trainer for a `Subject`; see the module for what differs."""

    _buffered_inputs: Any
    control: Any

    def __init__(self, subject: Subject, settings: argparse.Namespace, config: GRPOConfig) -> None:
        self.subject = subject
        self.settings = settings
        self.folder = Path(settings.output_dir)
        self.replies: list[tuple[Row, str, list[float]]] = []  # of the last rollouts, with their rewards
        self.held_out: list[Row] = []  # this process's share, once it is needed
        rank = settings.lora
        super().__init__(
            model=subject.model,
            reward_funcs=list(subject.rewards),
            args=config,
            train_dataset=as_dataset(subject.train, 2 * settings.batch_size),
            eval_dataset=as_dataset(subject.held_out, 0),
            processing_class=subject.processing,
            peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LORA_TARGETS) if rank else None,
        )
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise UsageError("models that are split between processes are for veRL or EasyR1; see training/clusters")
        if self.ref_model is not None and subject.model.config.model_type == "qwen2_5_vl":
            window_attention.install(self.ref_model.model.visual)
        self.remove_callback(PrinterCallback)
        self.mean = Mean(subject.model, settings.average) if settings.average else None
        if self.mean is not None:
            self.add_callback(self.mean)

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass

    # --- rollouts that share their prompt -----------------------------------------------------------------------------
    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, Any, Any]:
        """Of one prompt per group; token ids and images are repeated, tensors (pixels) are not."""
        n = self.num_generations
        ids, images, tensors = super()._tokenize_prompts(prompts[::n])
        ids, images = ([v for v in values for _ in range(n)] if values else values for values in (ids, images))
        return ids, images, tensors

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[list[list[int]], None]:
        """Sample replies: a group is one row, its prompt is read once, and its replies grow side by side."""
        if images is None:  # short prompts: not worth it
            result: tuple[list[list[int]], None] = super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
            return result
        n, device = self.num_generations, self.accelerator.device

        def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
            return pad([torch.tensor(row) for row in rows], padding_value=value, padding_side="left").to(device)

        prompts = prompt_ids[::n]
        ids = padded(prompts, self._tokenizer.pad_token_id)
        mask = padded([[1] * len(row) for row in prompts], 0)
        pixels, grids = (multimodal_fields[name].to(device) for name in ("pixel_values", "image_grid_thw"))
        kinds = padded(multimodal_fields["mm_token_type_ids"], 0)
        places, _ = self.subject.model.model.get_rope_index(
            ids, image_grid_thw=grids, attention_mask=mask, mm_token_type_ids=kinds
        )
        ends = torch.tensor(self.eos_token_ids, device=device)
        drawn = ids.new_full((len(ids), n, self.max_completion_length), self._tokenizer.pad_token_id)
        with (
            torch.no_grad(),
            self.accelerator.autocast(),  # of all steps together, so that weights are brought to bfloat16 once
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
        ):
            cache = model(
                input_ids=ids[:, :-1],
                attention_mask=mask[:, :-1],
                position_ids=places[:, :, :-1],
                pixel_values=pixels,
                image_grid_thw=grids,
                past_key_values=Cache(layer_class_to_replicate=RoomyLayer),
                use_cache=True,
                logits_to_keep=1,
            ).past_key_values
            groups = torch.arange(len(ids), device=device)  # those with a reply that goes on
            tokens, place = ids[:, -1:].expand(-1, n), places[:, :, -1:].expand(-1, -1, n)
            prompt_seen = mask[:, None, None, :-1].bool().expand(-1, 1, n, -1)
            own = torch.eye(n, dtype=torch.bool, device=device)
            for step in range(self.max_completion_length):
                replies_seen = own.repeat(1, step + 1).expand(len(groups), 1, -1, -1)
                logits = model(
                    input_ids=tokens,
                    attention_mask=torch.cat([prompt_seen, replies_seen], dim=-1),
                    position_ids=place + step,
                    past_key_values=cache,
                    use_cache=True,
                ).logits.float()
                logits[..., self.subject.suppress] = -torch.inf
                chances = (logits / self.temperature).softmax(-1)
                tokens = torch.multinomial(chances.flatten(0, 1), 1).view(-1, n)
                drawn[groups, :, step] = tokens
                on = ~torch.isin(drawn[groups], ends).any(-1).all(-1)
                if not on.any():
                    break
                if not on.all():
                    groups, tokens, place, prompt_seen = groups[on], tokens[on], place[:, on], prompt_seen[on]
                    cache.batch_select_indices(on.nonzero().flatten())
        replies = []
        for row in drawn.flatten(0, 1).tolist():
            end = next((i for i, token in enumerate(row) if token in self.eos_token_ids), len(row))
            replies.append(row[: end + 1])
        return replies, None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL's, without its shuffling."""
        steps = self.args.steps_per_generation
        if self._step % steps == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(batch, steps)]
        return self._buffered_inputs[self._step % steps]

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        """As TRL's, without the pass through the model for rollouts from which nothing is to be learnt."""
        if self.beta == 0 and self.accelerator.num_processes == 1 and inputs["advantages"].abs().max() < 1e-5:
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        loss: Tensor = super()._compute_loss(model, inputs)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **inputs: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        """Log-probabilities and entropies of the replies' tokens, (rows, logits_to_keep) each; 0 at padding."""
        if inputs.get("pixel_values") is None:
            whole: tuple[Tensor, Tensor | None, None] = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **inputs
            )
            return whole
        rows = len(input_ids)
        pixels = inputs["pixel_values"].view(rows, -1, inputs["pixel_values"].shape[-1])
        parts = [
            self._packed(
                model,
                input_ids[i : i + size],
                attention_mask[i : i + size],
                logits_to_keep,
                pixels[i : i + size],
                inputs["image_grid_thw"][i : i + size],
                inputs["mm_token_type_ids"][i : i + size],
            )
            for size in [batch_size or rows]
            for i in range(0, rows, size)
        ]
        logps, entropies = (torch.cat(values) for values in zip(*parts, strict=True))
        return logps, entropies if compute_entropy else None, None

    def _packed(
        self, model: Any, ids: Tensor, mask: Tensor, n_reply: int, pixels: Tensor, grids: Tensor, kinds: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Each group as one row: the prompt, then its replies, which do not see each other.

        Every reply begins with the prompt's last token, which predicts its first. Padding is left out, but for what
        makes the rows equally long in the end.
        """
        n = self.num_generations
        n_prompt = ids.shape[1] - n_reply
        groups = len(ids) // n
        prompt, prompt_mask = ids[::n, :n_prompt], mask[::n, :n_prompt]
        replies, reply_mask = ids[:, n_prompt:].view(groups, n, -1), mask[:, n_prompt:].view(groups, n, -1).bool()

        def joined(head: Tensor, replies: Tensor) -> Tensor:
            return torch.cat([head, replies.flatten(1)], dim=1)

        starts = prompt[:, None, -1:].expand(-1, n, -1)
        tokens = joined(prompt[:, :-1], torch.cat([starts, replies[..., :-1]], dim=-1))
        targets = joined(torch.full_like(prompt[:, :-1], -100), replies.masked_fill(~reply_mask, -100))
        there = joined(prompt_mask[:, :-1].bool(), reply_mask)  # a reply's last token predicts nothing: left out, too
        places, _ = self.subject.model.model.get_rope_index(
            prompt, image_grid_thw=grids[::n], attention_mask=prompt_mask, mm_token_type_ids=kinds[::n, :n_prompt]
        )
        onwards = places[:, :, -1:, None] + torch.arange(n_reply, device=ids.device)
        places = torch.cat([places[:, :, :-1], onwards.expand(-1, -1, n, -1).flatten(2)], dim=2)
        owner = torch.arange(n, device=ids.device).repeat_interleave(n_reply) + 1
        owner = torch.cat([owner.new_zeros(n_prompt - 1), owner])  # 0 is the prompt

        def packed(values: Sequence[Tensor], padding: int) -> Tensor:
            kept = [v[keep] for v, keep in zip(values, there, strict=True)]
            return pad_sequence(kept, batch_first=True, padding_value=padding)

        of = packed([owner] * groups, -1)
        length = of.shape[1]
        seen = (of[:, :, None] == of[:, None, :]) | (of[:, None, :] == 0)
        seen &= torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        seen |= torch.eye(length, dtype=torch.bool, device=ids.device)  # padding sees itself, and nobody sees it
        with self.accelerator.autocast():
            output = model(
                input_ids=packed(tokens, self._tokenizer.pad_token_id),
                attention_mask=seen[:, None],
                position_ids=torch.stack([packed(place, 0) for place in places]),
                pixel_values=pixels[::n].flatten(0, 1),
                image_grid_thw=grids[::n],
                shift_labels=packed(targets, -100),
                fused_lm_head=True,
            )

        def unpacked(values: Tensor) -> Tensor:
            full = values.new_zeros(there.shape)
            full = full.masked_scatter(there, values[of >= 0])
            return full[:, n_prompt - 1 :].reshape(groups * n, n_reply)

        return unpacked(output.log_probs), unpacked(output.entropy if output.entropy is not None else output.log_probs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As the Trainer's, with the moving mean of the weights."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.mean is not None and self.is_world_process_zero():
            self.mean.save(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As the Trainer's, which skips most weights of a Qwen2.5-VL: their names in files are not those in memory."""
        if self.mean is not None:
            self.mean.load(Path(resume_from_checkpoint))
        if self.settings.lora:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        ours = self.subject.model
        saved = type(ours).from_pretrained(resume_from_checkpoint, dtype=ours.dtype, local_files_only=True)
        ours.load_state_dict(saved.state_dict())

    # --- figures and checkpoints --------------------------------------------------------------------------------------
    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        mine = rewards[self.accelerator.process_index * len(inputs) :].tolist()
        self.replies = [(row, reply[0]["content"], r) for row, reply, r in zip(inputs, completions, mine, strict=False)]
        return rewards

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's and the Trainer's figures, also as a line of log.jsonl and a short one on standard error."""
        super().log(logs, start_time)  # adds TRL's figures to `logs`
        if not self.is_world_process_zero() or "train_runtime" in logs:
            return
        step = self.state.global_step
        figures = {k: v if v is None or math.isfinite(v) else None for k, v in logs.items()}
        with (self.folder / "log.jsonl").open("ab") as stream:
            add_lines(stream, [{"step": step, **figures}])
        logger.info("%s", one_line(step, figures))
        if "reward" in logs and self.settings.sample_every and step % self.settings.sample_every == 0:
            self._log_samples(step)

    def _log_samples(self, step: int) -> None:
        names = self.reward_func_names
        every = max(1, len(self.replies) // SAMPLES)
        samples = [
            {
                "step": step,
                **{name: row[name] for name in ("id", "problem", "solution", "category") if name in row},
                "reply": reply,
                "rewards": dict(zip(names, rewards, strict=True)),
            }
            for row, reply, rewards in self.replies[::every][:SAMPLES]
        ]
        with (self.folder / "samples.jsonl").open("ab") as stream:
            add_lines(stream, samples)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                for i, sample in enumerate(samples):
                    callback.tb_writer.add_text(f"samples/{i}", f"```\n{json.dumps(sample, indent=1)}\n```", step)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # noqa: ARG002 - whatever the Trainer gives
        """Greedy figures of the held-out rows; writes the checkpoint where its reward is the best so far."""
        index, processes = self.accelerator.process_index, self.accelerator.num_processes
        self.held_out = self.held_out or [
            self.subject.held_out.at(i) for i in range(index, self.subject.held_out.n, processes)
        ]
        was_training = self.model.training
        self.model.eval()
        if self.mean is not None:
            self.mean.swap()
        mine = self.subject.score(self.held_out)
        scores: list[dict[str, float]] = gather_object(mine)
        names = dict.fromkeys(name for score in scores for name in score)
        values = {name: [score[name] for score in scores if name in score] for name in names}
        metrics = {f"eval_{name}": sum(found) / len(found) for name, found in sorted(values.items())}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.is_world_process_zero():
            best = read_best(self.folder)
            result = self.folder / self.subject.part
            if best is None or metrics["eval_reward"] > best["eval_reward"] or not result.is_dir():
                export(self.subject, result)
                record = {"step": self.state.global_step, **metrics}
                write_whole(self.folder / "best.json", lambda path: path.write_text(json.dumps(record, indent=1)))
        self.accelerator.wait_for_everyone()
        if self.mean is not None:
            self.mean.swap()
        self.model.train(was_training)
        return metrics


def as_dataset(rows: Rows, remembered: int) -> datasets.Dataset:
    """Rows as TRL takes them; the Trainer reads each once for every rollout, so the last ones are remembered."""
    at = lru_cache(maxsize=remembered)(rows.at)

    def columns(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        found = [at(i) for i in batch["index"]]
        return {name: [row[name] for row in found] for name in found[0]}

    return datasets.Dataset.from_dict({"index": range(rows.n)}).with_transform(columns)


def one_line(step: int, figures: dict[str, float | None]) -> str:
    """What is worth watching, in one line."""
    if "eval_reward" in figures:
        shown = {name: name.removeprefix("eval_") for name in figures if name.startswith("eval_") and "/" not in name}
        head = f"step {step}, held out:"
    else:
        shown = {"reward": "reward", "kl": "KL", "entropy": "entropy", "completions/mean_length": "length"}
        shown |= {"frac_reward_zero_std": "groups without variance", "step_time": "seconds"}
        head = f"step {step}:"
    return f"{head} " + ", ".join(
        f"{text} {figures[name]:.3g}" for name, text in shown.items() if figures.get(name) is not None
    )


# --- the checkpoint that is left --------------------------------------------------------------------------------------
def export(subject: Subject, folder: Path) -> None:
    """Write the checkpoint, adapters merged, in the number format and with the files it came with."""
    with whole_folder(folder) as scratch:
        subject.model.save_pretrained(scratch, state_dict=weights_of(subject))
        for file in subject.folder.iterdir():
            if file.suffix in (".json", ".jinja", ".txt") and not file.name.endswith(".index.json"):
                shutil.copy(file, scratch)
        if subject.answers_at_once:
            generation = scratch / "generation_config.json"
            asked = json.loads(generation.read_text()) | {"suppress_tokens": subject.suppress}
            generation.write_text(json.dumps(asked))


def weights_of(subject: Subject) -> dict[str, Tensor]:
    """The model's weights by name, as in its checkpoint."""
    with safe_open(next(subject.folder.glob("*.safetensors")), "pt") as stored:
        dtype = stored.get_tensor(next(iter(stored.keys()))).dtype
    added = {
        f"{name}.base_layer.weight": module.get_delta_weight("default")
        for name, module in subject.model.named_modules()
        if isinstance(module, LoraLayer)
    }
    return {
        name.replace(".base_layer", ""): (value + added[name] if name in added else value).to(dtype)
        for name, value in subject.model.state_dict().items()
        if ".lora_" not in name
    }


def read_best(folder: Path) -> dict[str, float] | None:
    """The figures of the checkpoint that was written, None where there is none."""
    file = folder / "best.json"
    return json.loads(file.read_text()) if file.is_file() else None


# --- a run ------------------------------------------------------------------------------------------------------------
def train(settings: argparse.Namespace) -> Path:
    """Train as `settings` (see `grpo.build_parser`) say, from the run's last checkpoint if there is one.

    Returns:
        The best checkpoint: the bundle that it is part of, if it began as part of one, or its folder.

    Raises:
        VisionReasonerError: something cannot be used; the message says what.
    """
    folder = Path(settings.output_dir)
    last = last_checkpoint(folder)
    step = 0 if last is None else int(last.name.rpartition("-")[2])
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    subject = load_subject(settings)
    config = trl_config(settings, first=last is None)
    if subject.train.n < settings.batch_size:
        raise UsageError(f"{subject.train.n} rows to train on, and a step takes {settings.batch_size}: --batch_size")
    bundle = subject.folder.parent if is_bundle(subject.folder.parent) else None
    result = folder / subject.part if bundle is None else folder
    if os.environ.get("RANK", "0") == "0":
        check_settings(settings, folder, subject.train.n, goes_on=last is not None)
        for log in ("log.jsonl", "samples.jsonl"):
            keep_lines(folder / log, lambda line: last is not None and line["step"] <= step)
        if bundle is not None:  # what is left is one, too
            for part in RELEASED.keys() - {subject.part}:
                shutil.copytree(bundle / part, folder / part, dirs_exist_ok=True)
    if 0 < settings.max_steps <= step:
        logger.info("%s has %d steps already; a higher --max_steps goes on", folder, step)
        return result
    trainer = Trainer(subject, settings, config)
    if last is not None:
        logger.info("going on from %s", last)
    with denormals_flushed():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    return result


def trl_config(settings: argparse.Namespace, *, first: bool) -> GRPOConfig:
    """TRL's settings: a step is `batch_size` prompts with `num_generations` rollouts each, none of them stale.

    Args:
        settings: of the command line.
        first: whether the run begins, and not goes on.
    """
    on_gpu = torch.cuda.is_available()
    at_once = settings.micro_batch * int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun and accelerate say it
    if settings.batch_size % at_once:
        raise UsageError(f"--batch_size {settings.batch_size} is no multiple of --micro_batch x processes = {at_once}")
    return GRPOConfig(
        output_dir=settings.output_dir,
        per_device_train_batch_size=settings.micro_batch * settings.num_generations,
        gradient_accumulation_steps=settings.batch_size // at_once,
        per_device_eval_batch_size=settings.num_generations,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        learning_rate=settings.lr,
        lr_scheduler_type="constant",
        weight_decay=settings.weight_decay,
        beta=settings.beta,
        epsilon=0.2,
        loss_type="bnpo",
        use_bias_correction_kl=False,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        use_cpu=not on_gpu,
        bf16=on_gpu or has_bfloat16(),
        gradient_checkpointing=on_gpu,
        eval_strategy="steps",
        eval_steps=settings.eval_every,
        eval_on_start=first,
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=2,
        logging_steps=1,
        report_to=["tensorboard"],
        disable_tqdm=True,
        seed=settings.seed,
        dataloader_pin_memory=on_gpu,
    )


def check_settings(settings: argparse.Namespace, folder: Path, n_rows: int, *, goes_on: bool) -> None:
    """Write down what a run is made with, or compare it with what was written when it began.

    Raises:
        UsageError: the folder holds a run with other settings, or a result that there is no going on from.
    """
    file = folder / "settings.json"
    now = {f"--{name}": value for name, value in sorted(vars(settings).items()) if name not in FREE_SETTINGS}
    now["rows to train on:"] = n_rows
    if goes_on and file.is_file():
        before = json.loads(file.read_text())
        for name in now:
            if before.get(name) != now[name]:
                raise UsageError(
                    f"{folder}: holds a run with {name} {before.get(name)}, now it is {now[name]}; "
                    "give another --output_dir"
                )
        return
    if not goes_on:
        best = read_best(folder)
        if best is not None and best["step"] > 0:
            raise UsageError(
                f"{folder}: holds the result of {best['step']} steps and no checkpoint to go on from; "
                "give another --output_dir, or delete it"
            )
        (folder / "best.json").unlink(missing_ok=True)
    write_whole(file, lambda path: path.write_text(json.dumps(now, indent=1)))


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a run that is complete, None where there is none."""
    found = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]  # written last
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
