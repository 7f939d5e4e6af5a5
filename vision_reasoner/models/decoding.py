"""Greedy decoding over a key-value cache of fixed size, so that on CUDA a whole step is replayed as one graph.

transformers' own loop launches each small kernel of a step from Python, and meets a new cache length in every step.
Here the cache is allocated once, a step reads and writes nothing but buffers that stay where they are, and its kernels
are recorded once for each shape. Shapes are few: rows are padded to `ROWS`, the part of the cache that a step looks at
grows by `SPAN`. What a step computes is what transformers' modules compute for one token; it calls their projections.

Knows the text decoders of Qwen2, Qwen2-VL and Qwen2.5-VL. Knows nothing of prompts and text, purely token ids.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MODEL_TYPES = ("qwen2", "qwen2_vl", "qwen2_5_vl")
ROWS = (1, 2, 4, 8, 16, 32, 64)  # larger batches are padded to a multiple of the last
SPAN = 512  # columns of the cache; a step that looks at some too many costs less than one graph more
CAPTURE_AFTER = 8  # steps at a shape; recording one takes about as long as a few of them
DONE_HERE = {  # what a generation config may say because it is done here, or acts on sampling alone
    *("bos_token_id", "eos_token_id", "pad_token_id", "repetition_penalty", "max_new_tokens", "max_length"),
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "use_cache", "transformers_version", "_from_model_config"),
}


@dataclass(frozen=True)
class Rules:
    """How the next token is chosen, and what ends a row.

    Attributes:
        ends: the end tokens.
        pad: what a row that has ended goes on with.
        penalty: divides the positive scores of tokens that were there before, and multiplies the negative ones.
        logprobs: whether each token's log-probability is noted.
    """

    ends: tuple[int, ...]
    pad: int
    penalty: float = 1.0
    logprobs: bool = False


@dataclass(frozen=True)
class Start:
    """A batch of N prompts that the model has read, with the first token that it chose for each.

    Attributes:
        prompt: (N, L) token ids, padded on the left.
        mask: (N, L), 0 where `prompt` is padding.
        positions: (N,) of the first new token in the model's rotary embedding.
        tokens: (N,) the first new tokens.
        logprobs: (N,) float32, theirs, if wanted.
        layers: keys and values of each layer, (N, heads, L, head size).
    """

    prompt: "torch.Tensor"
    mask: "torch.Tensor"
    positions: "torch.Tensor"
    tokens: "torch.Tensor"
    logprobs: "torch.Tensor | None"
    layers: list[tuple["torch.Tensor", "torch.Tensor"]]


def is_supported(model: Any) -> bool:
    """Whether the model's text decoder is one that this module knows."""
    config = model.config.get_text_config()
    plain_rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default") == "default"
    full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    return model.config.model_type in MODEL_TYPES and plain_rope and full


def is_plain(config: Any) -> bool:
    """Whether a generation config asks for nothing but greedy decoding, with a repetition penalty at most."""
    said = config.to_diff_dict().items()
    return all(name in DONE_HERE or not value or (name, value) == ("num_beams", 1) for name, value in said)


def padded_rows(n: int) -> int:
    """The number of rows that a batch of `n` is decoded as."""
    return next((rows for rows in ROWS if rows >= n), -(-n // ROWS[-1]) * ROWS[-1])


def padded_span(columns: int) -> int:
    """The part of the cache that a step looks at which needs `columns` of it."""
    return -(-columns // SPAN) * SPAN


class StaticDecoder:
    """Decodes batches of one model; keeps its cache and its recorded steps for the next batch."""

    def __init__(self, model: Any) -> None:
        """Nothing is allocated yet.

        Args:
            model: a loaded transformers model that `is_supported`.
        """
        self.model = model
        self._state: _State | None = None
        self._graphs: dict[tuple[int, int, Rules], Any] = {}
        self._steps: dict[tuple[int, int, Rules], int] = defaultdict(int)
        self._ends: dict[Rules, torch.Tensor] = {}
        self._pool: Any = None
        self._stream: Any = None
        self._lock = threading.Lock()

    @property
    def holds_memory(self) -> bool:
        """Whether a cache is allocated."""
        return self._state is not None

    def release(self) -> None:
        """Give the memory back."""
        self._graphs.clear()
        self._state = self._pool = None

    def decode(
        self,
        start: Start,
        limit: int,
        rules: Rules,
        follow: Callable[[Callable[[], list[int]]], bool] | None = None,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Go on until every row has ended.

        Args:
            start: the batch; its `layers` are taken out one by one, which frees their memory.
            limit: how many new tokens a row may have, the first included.
            rules: see there.
            follow: called after each token with what gives each row's newest one; it ends all rows by saying True.

        Returns:
            For each row its new tokens, all as many, with padding after the end; and as many log-probabilities, or
            none at all.

        Raises:
            torch.OutOfMemoryError: memory does not suffice; `release` gives back what is held.
        """
        import torch

        device = self.model.device
        on_device = torch.cuda.device(device) if device.type == "cuda" else nullcontext()  # for streams and events
        with self._lock, torch.inference_mode(), on_device:
            n, n_prompt = start.prompt.shape
            rows = padded_rows(n)
            state = self._state_for(rows, padded_span(n_prompt + limit)).rows(rows)
            state.begin(start, rules)
            stop = _LateStop(state.finished)
            done = 1

            def newest() -> list[int]:
                last: list[int] = state.tokens[:n, done - 1].tolist()
                return last

            while done < limit and not stop() and not (follow is not None and follow(newest)):
                self._advance(state, padded_span(n_prompt + done), rules)
                done += 1
            tokens: list[list[int]] = state.tokens[:n, :done].tolist()
            logprobs: list[list[float]] = state.logprobs[:n, :done].tolist() if rules.logprobs else []
            return tokens, logprobs

    def _advance(self, state: "_State", span: int, rules: Rules) -> None:
        """One step, from the graph if there is one."""
        key = (len(state.token), span, rules)
        if key not in self._graphs and self._steps[key] >= CAPTURE_AFTER and state.token.is_cuda:
            self._graphs[key] = self._capture(state, span, rules)
        if key in self._graphs:
            self._graphs[key].replay()
        else:
            self._steps[key] += 1
            self._step(state, span, rules)

    def _capture(self, state: "_State", span: int, rules: Rules) -> Any:
        import torch

        self._pool = self._pool or torch.cuda.graph_pool_handle()
        self._stream = self._stream or torch.cuda.Stream()  # torch's own is of the device that first recorded anything
        graph = torch.cuda.CUDAGraph()
        # Recorded with nothing but this thread's calls: another may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            self._step(state, span, rules)
        logger.debug("recorded a decoding step of %d rows over %d tokens", len(state.token), span)
        return graph

    def _step(self, state: "_State", span: int, rules: Rules) -> None:
        """Read each row's last token, choose the next one and note it."""
        if rules not in self._ends:
            self._ends[rules] = state.token.new_tensor(rules.ends)
        logits = next_logits(self.model, state, span)
        state.choose(logits, rules, self._ends[rules])

    def _state_for(self, rows: int, capacity: int) -> "_State":
        """Buffers for so many rows and columns at least."""
        from vision_reasoner.models.devices import is_out_of_memory

        held = self._state
        if held is not None:
            if len(held.token) >= rows and held.capacity >= capacity:
                return held
            wanted = max(rows, len(held.token)), max(capacity, held.capacity)
            del held
            self.release()
            try:
                self._state = _State.allocate(self.model, *wanted)
                return self._state
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
        self._state = _State.allocate(self.model, rows, capacity)
        return self._state


@dataclass(frozen=True)
class _State:
    """The buffers that steps read and write, of R rows and C columns.

    Attributes:
        cache: (layers, 2, R, heads, C, head size), keys and values.
        mask: (R, 1, 1, C), added to the attention's scores: 0 or minus infinity.
        seen: (R, vocabulary) bool, the tokens that were there before.
        token, position: (R,) of the token that is read next.
        finished: (R,) bool.
        column: (1,) of the cache, where the token that is read next goes.
        done: (1,) how many new tokens there are.
        tokens, logprobs: (R, C) the new ones.
    """

    cache: "torch.Tensor"
    mask: "torch.Tensor"
    seen: "torch.Tensor"
    token: "torch.Tensor"
    position: "torch.Tensor"
    finished: "torch.Tensor"
    column: "torch.Tensor"
    done: "torch.Tensor"
    tokens: "torch.Tensor"
    logprobs: "torch.Tensor"

    @classmethod
    def allocate(cls, model: Any, rows: int, capacity: int) -> Self:
        """Fresh buffers for a model."""
        import torch

        config, device = model.config.get_text_config(), model.device
        head_size = config.hidden_size // config.num_attention_heads
        integer: dict[str, Any] = {"dtype": torch.long, "device": device}
        return cls(
            cache=torch.zeros(
                (config.num_hidden_layers, 2, rows, config.num_key_value_heads, capacity, head_size),
                dtype=model.dtype,
                device=device,
            ),
            mask=torch.zeros((rows, 1, 1, capacity), dtype=model.dtype, device=device),
            seen=torch.zeros((rows, model.get_output_embeddings().out_features), dtype=torch.bool, device=device),
            token=torch.zeros(rows, **integer),
            position=torch.zeros(rows, **integer),
            finished=torch.zeros(rows, dtype=torch.bool, device=device),
            column=torch.zeros(1, **integer),
            done=torch.zeros(1, **integer),
            tokens=torch.zeros((rows, capacity), **integer),
            logprobs=torch.zeros((rows, capacity), device=device),
        )

    @property
    def capacity(self) -> int:
        """The columns of the cache."""
        return self.mask.shape[-1]

    def rows(self, n: int) -> "_State":
        """The first rows of the same buffers."""
        return _State(
            cache=self.cache[:, :, :n],
            column=self.column,
            done=self.done,
            **{
                name: getattr(self, name)[:n]
                for name in ("mask", "seen", "token", "position", "finished", "tokens", "logprobs")
            },
        )

    def begin(self, start: Start, rules: Rules) -> None:
        """Fill in a batch that was read; rows beyond it count as ended."""
        n, n_prompt = start.prompt.shape
        self.cache[..., n_prompt:, :].zero_()  # what an earlier batch left there is masked, but 0 times inf is NaN
        for layer in range(len(self.cache)):
            for part, tensor in enumerate(start.layers.pop(0)):
                self.cache[layer, part, :n, :, :n_prompt] = tensor
        self.mask.fill_(float("-inf"))
        self.mask[n:, ..., 0] = 0
        self.mask[:n, 0, 0, :n_prompt].masked_fill_(start.mask != 0, 0)
        self.position.zero_()[:n] = start.positions
        self.column.fill_(n_prompt)
        self.done.fill_(1)
        self.token.fill_(rules.pad)[:n] = start.tokens
        self.tokens[:n, 0] = start.tokens
        if start.logprobs is not None:
            self.logprobs[:n, 0] = start.logprobs
        self.finished.fill_(True)[:n] = (start.tokens[:, None] == start.tokens.new_tensor(rules.ends)).any(1)
        if rules.penalty != 1:
            there = start.prompt.where(start.mask != 0, start.prompt[:, -1:])  # padding does not count
            self.seen.zero_()[:n].scatter_(1, there, True)
            self.seen.scatter_(1, self.token[:, None], True)

    def choose(self, logits: "torch.Tensor", rules: Rules, ends: "torch.Tensor") -> None:
        """Take the best token of (R, vocabulary) logits, note it, and be ready for the next step."""
        import torch

        scores = logits.float()
        best = penalized(scores, self.seen, rules.penalty) if rules.penalty != 1 else scores
        chosen = best.argmax(1).masked_fill_(self.finished, rules.pad)
        if rules.logprobs:
            likely = scores.gather(1, chosen[:, None]) - scores.logsumexp(1, keepdim=True)
            self.logprobs.index_copy_(1, self.done, likely)
        if rules.penalty != 1:
            self.seen.scatter_(1, chosen[:, None], True)
        self.tokens.index_copy_(1, self.done, chosen[:, None])
        self.token.copy_(chosen)
        torch.logical_or(self.finished, (chosen[:, None] == ends).any(1), out=self.finished)
        self.position.add_(1)
        self.column.add_(1)
        self.done.add_(1)


class _LateStop:
    """Says whether all rows had ended one step ago: so the device has the next step before its answer is waited for."""

    def __init__(self, finished: "torch.Tensor") -> None:
        self.finished = finished
        self.asked: Any = None  # the answer under way, and the event after which it is there

    def __call__(self) -> bool:
        import torch

        if not self.finished.is_cuda:
            return bool(self.finished.all())
        before = self.asked
        answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        answer.copy_(self.finished.all(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.asked = answer, event
        if before is None:
            return False
        before[1].synchronize()
        return bool(before[0])


def penalized(scores: "torch.Tensor", seen: "torch.Tensor", penalty: float) -> "torch.Tensor":
    """transformers' repetition penalty: scores of tokens that were there before, made smaller."""
    import torch

    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def next_logits(model: Any, state: _State, span: int) -> "torch.Tensor":
    """Read `state.token` into the cache and give the logits of what follows, (R, vocabulary).

    The same sums as in transformers' decoder layers, for one token in each row. In the order of their additions they
    may differ, so float32 results agree to the last digits only.

    Args:
        model: the model.
        state: the buffers; the token's column of cache and mask is written.
        span: how many columns of the cache are looked at.
    """
    import torch
    from torch.nn.functional import rms_norm

    decoder = model.get_decoder()
    hidden = model.get_input_embeddings()(state.token)
    cos, sin = rotation(decoder.rotary_emb, state.position, hidden.dtype)
    state.mask.index_fill_(3, state.column, 0)
    mask = state.mask[..., :span]
    for layer, cache in zip(decoder.layers, state.cache, strict=True):
        attention = layer.self_attn
        norm = layer.input_layernorm
        normed = rms_norm(hidden, hidden.shape[1:], norm.weight, norm.variance_epsilon)
        query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
        turned = rotate(torch.cat((query, key), 1).unflatten(1, (-1, attention.head_dim)), cos, sin)
        n_heads = query.shape[1] // attention.head_dim
        cache[0].index_copy_(2, state.column, turned[:, n_heads:, None])
        cache[1].index_copy_(2, state.column, value.unflatten(1, (-1, 1, attention.head_dim)))
        queries = turned[:, :n_heads].unflatten(1, (cache.shape[2], -1))  # heads that share their keys, together
        seen = attend(queries, cache[0, :, :, :span], cache[1, :, :, :span], mask, attention.scaling)
        hidden = hidden + attention.o_proj(seen.flatten(1))
        norm = layer.post_attention_layernorm
        hidden = hidden + layer.mlp(rms_norm(hidden, hidden.shape[1:], norm.weight, norm.variance_epsilon))
    last: torch.Tensor = model.get_output_embeddings()(
        rms_norm(hidden, hidden.shape[1:], decoder.norm.weight, decoder.norm.variance_epsilon)
    )
    return last


def attend(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", mask: "torch.Tensor", scale: float
) -> "torch.Tensor":
    """Attention of (R, groups, heads, head size) queries over (R, groups, span, head size) keys and values."""
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def rotation(rotary: Any, position: "torch.Tensor", dtype: "torch.dtype") -> Sequence["torch.Tensor"]:
    """Cosine and sine of each row's rotary embedding, (R, 1, head size); the first half of the sine negated.

    New tokens are text, whose three positions are one in the multimodal embedding of Qwen2-VL too.
    """
    import torch

    angle = position[:, None, None].float() * rotary.inv_freq.float()
    cos, sin = angle.cos() * rotary.attention_scaling, angle.sin() * rotary.attention_scaling
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(heads: "torch.Tensor", cos: "torch.Tensor", sin: "torch.Tensor") -> "torch.Tensor":
    """Turn (R, heads, head size) by `rotation`."""
    import torch

    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)
