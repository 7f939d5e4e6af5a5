"""GRPO with TRL's trainer, which here computes once what the rollouts of a prompt have in common.

Departures from TRL's GRPOTrainer. None of them changes the training beyond rounding (the tests compare them):

- image and prompt go through the model once for all rollouts, both to sample them and to compute their likelihood; TRL
  does so once for each rollout. Replies are not padded;
- the rollouts of a prompt stay together in a forward pass; TRL shuffles them. Groups whose rollouts all have the same
  reward have no gradient without a KL term: in one process they are left out of it, and of the logged entropy;
- evaluation decodes greedily, as inference does, and the best checkpoint so far is written as `--model_path` takes it;
- what is evaluated and written can be the moving average of the weights, which averages out the noise of single steps;
- no telemetry is sent, and no model card is written.

Importing this needs the extra `.[train]`.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations import TensorBoardCallback
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import pad, split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from vision_reasoner.errors import UsageError
from vision_reasoner.files import append_jsonl
from vision_reasoner.models import window_attention
from vision_reasoner.training.grpo.policies import Policy, Row, load_policy
from vision_reasoner.training.runs import RunTrainer, accumulation_of, as_dataset, lora_config, run_config, train_run

logger = logging.getLogger(__name__)

CLIP_EPSILON = 0.2  # of the likelihood ratio, as published (clip_ratio_low and _high of EasyR1)
LOSS_TYPE = "bnpo"  # the mean over all tokens of a batch, EasyR1's loss_avg_mode "token"
SAME_REWARD = 1e-5  # advantages below are those of a group whose rewards are all equal, but for rounding
SAMPLES = 4  # replies that are logged at a time


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in buffers that double when they are full.

    transformers' DynamicLayer copies all that it holds for every new token; its StaticLayer needs the final length at
    once and cannot drop the rows of groups that have ended.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add (batch, heads, new, width) keys and values; returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self.buffers = (self.keys, self.values)
        old, new = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        held = (self.keys, self.values)
        buffers = [
            buffer
            if kept.data_ptr() == buffer.data_ptr() and new <= buffer.shape[2]  # false after rows were dropped
            else torch.cat([kept, kept.new_empty(*kept.shape[:2], 2 * new - old, kept.shape[3])], dim=2)
            for kept, buffer in zip(held, self.buffers, strict=True)
        ]
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[:, :, old:new] = states
        self.buffers = (buffers[0], buffers[1])
        self.keys, self.values = (buffer[:, :, :new] for buffer in buffers)
        return self.keys, self.values


class Trainer(RunTrainer, GRPOTrainer):
    """TRL's trainer for a `Policy`; see the module for what differs."""

    _buffered_inputs: Any
    best_by = "eval_reward"
    shown = {  # noqa: RUF012 - a constant
        "reward": "reward",
        "kl": "KL",
        "entropy": "entropy",
        "completions/mean_length": "length",
        "frac_reward_zero_std": "groups without variance",
        "step_time": "seconds",
    }

    def __init__(self, policy: Policy, settings: argparse.Namespace, config: GRPOConfig) -> None:
        self.begin_run(policy, settings)
        self.replies: list[tuple[Row, str, list[float]]] = []  # of the last rollouts, with their rewards
        super().__init__(
            model=policy.model,
            reward_funcs=list(policy.rewards),
            args=config,
            train_dataset=as_dataset(policy.train, 2 * settings.batch_size),
            eval_dataset=as_dataset(policy.held_out, 0),
            processing_class=policy.processing,
            peft_config=lora_config(settings.lora),
        )
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise UsageError("models that are split between processes are for veRL or EasyR1; see training/clusters")
        if self.ref_model is not None and policy.model.config.model_type == "qwen2_5_vl":
            window_attention.install(self.ref_model.model.visual)
        self.watch_run()

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
        if images is None:  # the router's prompts are short: sharing them saves little
            result: tuple[list[list[int]], None] = super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
            return result
        with (
            torch.no_grad(),
            self.accelerator.autocast(),  # one for all steps, so that weights are cast to bfloat16 once
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
        ):
            sampled = self._sample_groups(model, prompt_ids[:: self.num_generations], multimodal_fields)
        replies = []
        for row in sampled.flatten(0, 1).tolist():
            end = next((i for i, token in enumerate(row) if token in self.eos_token_ids), len(row))
            replies.append(row[: end + 1])
        return replies, None

    def _sample_groups(self, model: Any, prompts: Sequence[Sequence[int]], fields: Any) -> Tensor:
        """Sample a group of replies for each prompt.

        Args:
            model: the unwrapped model.
            prompts: token ids.
            fields: the processor's tensors for all prompts: pixel_values, image_grid_thw, mm_token_type_ids.

        Returns:
            (prompts, num_generations, max_completion_length) token ids; what follows an end token has no meaning.
        """
        device = self.accelerator.device

        def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
            return pad([torch.tensor(row) for row in rows], padding_value=value, padding_side="left").to(device)

        ids = padded(prompts, self._tokenizer.pad_token_id)
        mask = padded([[1] * len(row) for row in prompts], 0)
        pixels, grids = (fields[name].to(device) for name in ("pixel_values", "image_grid_thw"))
        position_ids, _ = self.policy.model.model.get_rope_index(
            ids,
            image_grid_thw=grids,
            attention_mask=mask,
            mm_token_type_ids=padded(fields["mm_token_type_ids"], 0),
        )
        cache = model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=position_ids[:, :, :-1],
            pixel_values=pixels,
            image_grid_thw=grids,
            past_key_values=Cache(layer_class_to_replicate=PreallocatedLayer),
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values
        return self._decode_groups(model, cache, ids[:, -1:], mask[:, :-1], position_ids[:, :, -1:])

    def _decode_groups(self, model: Any, cache: Cache, last: Tensor, mask: Tensor, position_ids: Tensor) -> Tensor:
        """Sample replies after a prefill, until every group has only replies that have ended.

        Args:
            model: the unwrapped model.
            cache: keys and values of the prompts without their last token.
            last: (prompts, 1) the prompts' last tokens, with which every reply begins.
            mask: (prompts, length) 1 where the cache holds a token and not padding.
            position_ids: (3, prompts, 1) of the last tokens.
        """
        n = self.num_generations
        ends = torch.tensor(self.eos_token_ids, device=last.device)
        sampled = last.new_full((len(last), n, self.max_completion_length), self._tokenizer.pad_token_id)
        groups = torch.arange(len(last), device=last.device)  # those with a reply that has not ended
        tokens, position_ids = last.expand(-1, n), position_ids.expand(-1, -1, n)
        prompt_mask = mask[:, None, None].bool().expand(-1, 1, n, -1)
        own = torch.eye(n, dtype=torch.bool, device=last.device)  # a reply attends to itself and to no other
        for step in range(self.max_completion_length):
            reply_mask = own.repeat(1, step + 1).expand(len(groups), 1, -1, -1)
            logits = model(
                input_ids=tokens,
                attention_mask=torch.cat([prompt_mask, reply_mask], dim=-1),
                position_ids=position_ids + step,
                past_key_values=cache,
                use_cache=True,
            ).logits.float()
            logits[..., self.policy.suppress_tokens] = -torch.inf
            probabilities = (logits / self.temperature).softmax(-1)
            tokens = torch.multinomial(probabilities.flatten(0, 1), 1).view(-1, n)
            sampled[groups, :, step] = tokens
            unfinished = ~torch.isin(sampled[groups], ends).any(-1).all(-1)
            if not unfinished.any():
                break
            if not unfinished.all():
                groups, tokens, prompt_mask = groups[unfinished], tokens[unfinished], prompt_mask[unfinished]
                position_ids = position_ids[:, unfinished]
                cache.batch_select_indices(unfinished.nonzero().flatten())
        return sampled

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL's, without its shuffling."""
        steps = self.args.steps_per_generation
        if self._step % steps == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(batch, steps)]
        return self._buffered_inputs[self._step % steps]

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        """As TRL's, without the forward pass for rollouts that have no gradient."""
        if self.beta == 0 and self.accelerator.num_processes == 1 and inputs["advantages"].abs().max() < SAME_REWARD:
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
        """Log-probabilities and entropies, (groups x num_generations, n_reply) each, with each group packed as one row.

        A row is the prompt, then its replies, which do not attend to each other. Every reply begins with the prompt's
        last token, which predicts its first. Padding inside a row is left out; rows are padded to the same length.

        Args:
            model: to compute them with.
            ids: (groups x num_generations, prompt + n_reply) token ids, padded on the left and on the right.
            mask: 1 where `ids` is no padding.
            n_reply: longest reply.
            pixels: pixel_values by row of `ids`.
            grids: image_grid_thw by row of `ids`.
            kinds: mm_token_type_ids, as `ids`.
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
        kept = joined(prompt_mask[:, :-1].bool(), reply_mask)  # not a reply's last token either: it predicts nothing
        position_ids, _ = self.policy.model.model.get_rope_index(
            prompt, image_grid_thw=grids[::n], attention_mask=prompt_mask, mm_token_type_ids=kinds[::n, :n_prompt]
        )
        reply_positions = position_ids[:, :, -1:, None] + torch.arange(n_reply, device=ids.device)
        position_ids = torch.cat([position_ids[:, :, :-1], reply_positions.expand(-1, -1, n, -1).flatten(2)], dim=2)
        segments = torch.arange(n, device=ids.device).repeat_interleave(n_reply) + 1
        segments = torch.cat([segments.new_zeros(n_prompt - 1), segments])  # 0 is the prompt, 1 to n are the replies

        def packed(values: Sequence[Tensor], padding: int) -> Tensor:
            rows = [v[keep] for v, keep in zip(values, kept, strict=True)]
            return pad_sequence(rows, batch_first=True, padding_value=padding)

        segment = packed([segments] * groups, -1)
        with self.accelerator.autocast():
            output = model(
                input_ids=packed(tokens, self._tokenizer.pad_token_id),
                attention_mask=packed_attention(segment)[:, None],
                position_ids=torch.stack([packed(axis, 0) for axis in position_ids]),
                pixel_values=pixels[::n].flatten(0, 1),
                image_grid_thw=grids[::n],
                shift_labels=packed(targets, -100),
                fused_lm_head=True,
            )

        def unpacked(values: Tensor) -> Tensor:
            full = values.new_zeros(kept.shape)
            full = full.masked_scatter(kept, values[segment >= 0])
            return full[:, n_prompt - 1 :].reshape(groups * n, n_reply)

        return unpacked(output.log_probs), unpacked(output.entropy if output.entropy is not None else output.log_probs)

    # --- figures and checkpoints --------------------------------------------------------------------------------------
    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        mine = rewards[self.accelerator.process_index * len(inputs) :].tolist()
        self.replies = [(row, reply[0]["content"], r) for row, reply, r in zip(inputs, completions, mine, strict=False)]
        return rewards

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The run's figures, and some of the replies."""
        super().log(logs, start_time)
        step = self.state.global_step
        every = self.settings.sample_every
        if self.is_world_process_zero() and "reward" in logs and every and step % every == 0:
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
            append_jsonl(stream, samples)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                for i, sample in enumerate(samples):
                    callback.tb_writer.add_text(f"samples/{i}", f"```\n{json.dumps(sample, indent=1)}\n```", step)


def packed_attention(segment: Tensor) -> Tensor:
    """Which tokens of a packed row attend to which: to the prompt and to their own reply, up to themselves.

    Args:
        segment: (rows, length) 0 for tokens of the prompt, the reply's number for those of a reply, -1 for padding.

    Returns:
        (rows, length, length) bool, [row, query, key]; padding attends to itself, so that no query has no key.
    """
    length = segment.shape[1]
    attended = (segment[:, :, None] == segment[:, None, :]) | (segment[:, None, :] == 0)
    attended &= torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    return attended | torch.eye(length, dtype=torch.bool, device=segment.device)


# --- a run ------------------------------------------------------------------------------------------------------------
def train(settings: argparse.Namespace) -> Path:
    """Train as `settings` (see `grpo.build_parser`) say, from the run's last checkpoint if there is one.

    Returns:
        The best checkpoint: the bundle that it is part of, if it began as part of one, or its folder.

    Raises:
        VisionReasonerError: something cannot be used; the message says what.
    """

    def make(policy: Policy, *, first: bool) -> Trainer:
        return Trainer(policy, settings, trl_config(settings, first=first))

    return train_run(settings, load_policy, make)


def trl_config(settings: argparse.Namespace, *, first: bool) -> GRPOConfig:
    """TRL's settings: a step is `batch_size` prompts with `num_generations` rollouts each, none of them stale.

    Args:
        settings: of the command line.
        first: whether the run begins; False where it is continued.
    """
    return GRPOConfig(
        output_dir=settings.output_dir,
        per_device_train_batch_size=settings.micro_batch * settings.num_generations,
        gradient_accumulation_steps=accumulation_of(settings),
        per_device_eval_batch_size=settings.num_generations,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        learning_rate=settings.lr,
        lr_scheduler_type="constant",
        weight_decay=settings.weight_decay,
        beta=settings.beta,
        epsilon=CLIP_EPSILON,
        loss_type=LOSS_TYPE,
        use_bias_correction_kl=False,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        **run_config(settings, first=first),
    )
