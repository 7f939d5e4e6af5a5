"""What router and reasoner share: loading a transformers model, and greedy decoding of a left-padded batch.

Knows nothing of tasks or pictures; a batch is whatever the tokenizer or processor made of it.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vision_reasoner.errors import CheckpointError, QueryError, UsageError, VisionReasonerError
from vision_reasoner.models.checkpoints import Part, check_transformers_folder, load_errors, weight_bytes
from vision_reasoner.models.decoding import MODEL_TYPES, Rules, Start, StaticDecoder, is_plain, is_supported
from vision_reasoner.models.devices import (
    COMPILES,
    choose_attention,
    choose_device,
    choose_dtype,
    is_out_of_memory,
    use_free_cores,
)
from vision_reasoner.models.engine import Completion, Watch
from vision_reasoner.models.quantization import quantization_config

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_CUDNN_LOCK = threading.Lock()
_CUDNN_BEFORE: list[bool] = []  # for each `without_cudnn_attention` that is open, what the switch was

Item = TypeVar("Item")
Result = TypeVar("Result")


def load_model(
    classes: Mapping[str, Any],
    folder: Path,
    part: Part,
    *,
    device: str,
    dtype: str,
    attn_implementation: str,
    quantize: str = "none",
) -> Any:
    """Load a checkpoint's weights for inference, from safetensors only and without running code of the folder.

    Args:
        classes: the transformers class for each `model_type` that the part may have.
        folder: the checkpoint.
        part: what it is to be used as.
        device: a torch device or "auto".
        dtype: one of `devices.DTYPES`.
        attn_implementation: one of `devices.ATTENTIONS`.
        quantize: one of `devices.QUANTIZATIONS`.

    Raises:
        CheckpointError: it is incomplete, of another kind, or does not load.
        UsageError: there is no such device, dtype, attention or quantize.
    """
    use_free_cores()
    where = choose_device(device)
    number_format = choose_dtype(dtype, where, weight_bytes(folder))
    attention = choose_attention(attn_implementation, where, number_format)
    quantization = quantization_config(quantize, where, number_format)
    model_type = check_transformers_folder(folder, part)["model_type"]
    with load_errors(folder):
        model, report = classes[model_type].from_pretrained(
            folder,
            dtype=number_format,
            attn_implementation=attention,
            device_map=None if where.type == "cpu" else {"": where},
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **({} if quantization is None else {"quantization_config": quantization}),
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(
            f"{folder}: incomplete, {len(missing)} weights are missing (first {missing[0]}); download it again"
        )
    logger.debug("%s: %s on %s, %s, %s attention", folder, type(model).__name__, where, number_format, attention)
    model.generation_config = greedy_config(model.generation_config, model.config.get_text_config().vocab_size, folder)
    return model.eval()


# What a checkpoint's generation config may say: what acts on greedy decoding too.
KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "repetition_penalty", "no_repeat_ngram_size", "suppress_tokens")
SAMPLING = ("do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def greedy_config(config: Any, vocab_size: int, folder: Path) -> Any:
    """The part of a checkpoint's generation config that decoding keeps to; what is left out is said.

    Raises:
        CheckpointError: a token id is none of the model's, or another value is no positive number.
    """
    from transformers import GenerationConfig

    said = {name: value for name, value in config.to_diff_dict().items() if value not in (None, False, [], {})}
    kept = {name: said[name] for name in KEPT if name in said}
    for name, value in kept.items():
        tokens = name.endswith("_token_id") or name == "suppress_tokens"
        values = value if isinstance(value, list) else [value]
        if not all(
            type(v) is int and 0 <= v < vocab_size if tokens else type(v) in (int, float) and 0 < v < 1e9
            for v in values
        ):
            raise CheckpointError(f"{folder}: generation config with {name} {str(value)[:60]}; download it again")
    if kept.get("repetition_penalty", 1.0) != 1.0:
        logger.debug("%s: repetition_penalty %s is kept", folder, kept["repetition_penalty"])
    ordinary = {*KEPT, "use_cache", "transformers_version", "_from_model_config"}
    left_out = {name: value for name, value in said.items() if name not in ordinary}
    if left_out:
        level = logging.DEBUG if left_out.keys() <= set(SAMPLING) else logging.WARNING
        listed = ", ".join(f"{name}={str(value)[:40]}" for name, value in left_out.items())
        logger.log(level, "%s: decoding is greedy, so that its generation config's %s is ignored", folder, listed)
    return GenerationConfig(**kept)


def static_decoder(model: Any, compile: str = "auto") -> StaticDecoder | None:
    """What decodes a loaded model's replies fast, or None where transformers' own loop is to do it.

    A `StaticDecoder` takes the launching of kernels out of each step: a step of the released 7B takes less than half
    the time on an H200. It holds a cache for `max_new_tokens` of the largest batch so far, and records a step the
    eighth time that it meets a shape. Tokens are the same, but for ties in the last digit.

    Args:
        model: a loaded transformers model.
        compile: "auto" is on for a model on CUDA that is supported; "on" also elsewhere, where nothing is recorded and
            nothing gained; "off" is transformers' own loop.

    Raises:
        UsageError: there is no such value, or "on" for a model that is not supported.
    """
    if compile not in COMPILES:
        raise UsageError(f"no compile {compile!r}: give one of {', '.join(COMPILES)}")
    supported = is_supported(model)
    if compile == "on" and not supported:
        raise UsageError(
            f"{model.name_or_path}: compile is for {', '.join(MODEL_TYPES)} with full attention; leave it out"
        )
    wanted = compile == "on" or (compile == "auto" and model.device.type == "cuda")
    return StaticDecoder(model) if wanted and supported else None


def decode_greedily(
    model: Any,
    tokenizer: Any,
    batch: Mapping[str, "torch.Tensor"],
    max_new_tokens: int,
    *,
    logprobs: bool = False,
    decoder: StaticDecoder | None = None,
    watch: Watch | None = None,
) -> list[Completion]:
    """Decode a left-padded batch greedily until each row's end token.

    Nothing but the end token ends a reply: to stop at a closing tag as well would save the one token that follows it,
    cost a look at the text in every step, and cut replies that speak of the tag before they use it.

    Args:
        model: a loaded transformers model that can generate.
        tokenizer: its tokenizer.
        batch: what the tokenizer or processor gave, all of it (without `mm_token_type_ids` the positions of vision
            tokens would silently be wrong), with `input_ids` (N, L).
        max_new_tokens: the limit; less where the checkpoint has no positions left.
        logprobs: whether the log-probability of each token is wanted: the model's own, before anything in its
            generation config (a repetition penalty) acts on it.
        decoder: the model's `static_decoder`; without one, and where the generation config asks for what it cannot do,
            transformers' own loop decodes.
        watch: follows the rows and may stop all of them; looked at after every token.

    Returns:
        One for each of the N rows.

    Raises:
        QueryError: the prompt alone is longer than the checkpoint can take.
    """
    import torch

    n_rows, n_prompt = batch["input_ids"].shape
    positions = model.config.get_text_config().max_position_embeddings
    if n_prompt >= positions:
        raise QueryError(
            f"picture and query make {n_prompt} tokens, and the checkpoint takes {positions}; shorten the query"
        )
    config = _greedy_config(model, tokenizer, min(max_new_tokens, positions - n_prompt))
    ends = end_tokens(model.generation_config, tokenizer)
    follow = None if watch is None else _Follower(watch, tokenizer, ends, n_rows)
    start = time.perf_counter()
    with torch.inference_mode():
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        if decoder is not None and is_plain(config):
            written = _decode_static(decoder, inputs, config, ends, logprobs=logprobs, follow=follow)
        else:
            written = _decode_dynamic(model, inputs, config, logprobs=logprobs, follow=follow)
    first, last = written.first_time - start, time.perf_counter() - written.first_time
    decoded = []
    for row, row_logprobs in zip(written.tokens, written.logprobs or [[]] * n_rows, strict=True):
        end = next((i for i, token in enumerate(row) if token in ends), None)
        kept = row if end is None else row[:end]
        decoded.append(
            Completion(
                text=decode_tokens(tokenizer, kept),
                finished=end is not None,
                n_tokens=len(row) if end is None else end + 1,
                prefill_seconds=first / n_rows,
                decode_seconds=last / n_rows,
                logprobs=tuple(zip(token_ends(tokenizer, kept), row_logprobs, strict=False)) if logprobs else (),
            )
        )
        if watch is not None and watch.on_text is not None:
            watch.on_text(len(decoded) - 1, decoded[-1].text)
    return decoded


class _Follower:
    """Called after each step; tells a watch what each row says so far, and says whether to stop."""

    def __init__(self, watch: Watch, tokenizer: Any, ends: set[int], n_rows: int) -> None:
        self.watch, self.tokenizer, self.ends = watch, tokenizer, ends
        self.texts = [""] * n_rows
        self.pending: list[list[int]] = [[] for _ in range(n_rows)]  # tokens that are not in the text yet
        self.ended = [False] * n_rows

    def __call__(self, newest: Callable[[], Sequence[int]]) -> bool:
        """Whether to stop; `newest` gives each row's last token, for which a device has to be waited for."""
        if self.watch.on_text is not None:
            for row, token in enumerate(newest()):
                self.ended[row] = self.ended[row] or token in self.ends
                if not self.ended[row]:
                    self._see(row, token, self.watch.on_text)
        return self.watch.stopped

    def _see(self, row: int, token: int, on_text: Callable[[int, str], object]) -> None:
        self.pending[row].append(token)
        piece = decode_tokens(self.tokenizer, self.pending[row])
        if _is_whole(piece, len(self.pending[row])):
            self.texts[row] += piece
            self.pending[row].clear()
            if piece:
                on_text(row, self.texts[row])


@dataclass(frozen=True)
class _Tokens:
    """The new tokens of each row, all as many, and their log-probabilities or none; when the first ones were there."""

    tokens: list[list[int]]
    logprobs: list[list[float]]
    first_time: float


def _decode_dynamic(
    model: Any, inputs: Mapping[str, "torch.Tensor"], config: Any, *, logprobs: bool, follow: "_Follower | None"
) -> _Tokens:
    """By transformers' own loop, over a cache that grows."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Steps(StoppingCriteria):
        """Notes when the first token was there and how likely each one was, where wanted; stops where `follow` does."""

        first_time = 0.0

        def __init__(self) -> None:
            self.logits: torch.Tensor | None = None  # of the step that is on: (N, 1, vocabulary)
            self.logprobs: list[torch.Tensor] = []  # (N,) for each step

        def see_logits(self, module: Any, inputs: Any, logits: torch.Tensor) -> None:  # noqa: ARG002
            self.logits = logits

        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
            if not self.first_time:
                input_ids[0, -1].item()  # waits for the device
                self.first_time = time.perf_counter()
            if self.logits is not None:
                self.logprobs.append(_logprobs(self.logits[:, -1], input_ids[:, -1]))
            stop = follow is not None and follow(lambda: input_ids[:, -1].tolist())
            return torch.full((len(input_ids),), stop, dtype=torch.bool, device=input_ids.device)

    steps = Steps()
    hook = model.get_output_embeddings().register_forward_hook(steps.see_logits) if logprobs else nullcontext()
    with hook:
        output = model.generate(**inputs, generation_config=config, stopping_criteria=StoppingCriteriaList([steps]))
    return _Tokens(
        tokens=output[:, inputs["input_ids"].shape[1] :].tolist(),
        logprobs=torch.stack(steps.logprobs, dim=1).tolist() if steps.logprobs else [],
        first_time=steps.first_time,
    )


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Keep cuDNN's attention out: it plans anew for every cache length, which takes some 45 ms a step on an H200.

    The switch is the process's. With several threads it is set back when the last of them leaves.
    """
    import torch

    with _CUDNN_LOCK:
        _CUDNN_BEFORE.append(torch.backends.cuda.cudnn_sdp_enabled())
        torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        with _CUDNN_LOCK:
            torch.backends.cuda.enable_cudnn_sdp(_CUDNN_BEFORE.pop())


def _decode_static(
    decoder: StaticDecoder,
    inputs: Mapping[str, "torch.Tensor"],
    config: Any,
    ends: set[int],
    *,
    logprobs: bool,
    follow: "_Follower | None",
) -> _Tokens:
    """The prompt by transformers, all that follows the first token by `decoder`.

    Where memory does not suffice, what the decoder holds of earlier batches is given back before it is tried again.
    """
    import torch

    held = decoder.holds_memory
    try:
        return _decode_static_once(decoder, inputs, config, ends, logprobs=logprobs, follow=follow)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        decoder.release()
        if not held:
            raise
    torch.cuda.empty_cache()  # out here, where the failed attempt's tensors are no longer held by its traceback
    return _decode_static_once(decoder, inputs, config, ends, logprobs=logprobs, follow=follow)


def _decode_static_once(
    decoder: StaticDecoder,
    inputs: Mapping[str, "torch.Tensor"],
    config: Any,
    ends: set[int],
    *,
    logprobs: bool,
    follow: "_Follower | None",
) -> _Tokens:
    rules = Rules(tuple(sorted(ends)), config.pad_token_id, config.repetition_penalty or 1.0, logprobs)
    start = _read_prompt(decoder.model, inputs, config, logprobs=logprobs)
    start.tokens[0].item()  # waits for the device
    first_time = time.perf_counter()
    tokens, likely = decoder.decode(start, config.max_new_tokens, rules, follow)
    return _Tokens(tokens, likely, first_time)


def _read_prompt(model: Any, inputs: Mapping[str, "torch.Tensor"], config: Any, *, logprobs: bool) -> Start:
    """Let transformers read the prompt and choose the first token."""
    import torch

    one = copy.deepcopy(config)
    one.update(max_new_tokens=1, use_cache=True, return_dict_in_generate=True, output_logits=logprobs)
    output = model.generate(**inputs, generation_config=one)
    cache = output["cache"] if "cache" in output else output["past_key_values"]  # its name until transformers 5.23
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    shift = getattr(model.model, "rope_deltas", None)  # pictures take fewer positions than tokens
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    cache.layers.clear()
    tokens = output.sequences[:, -1]
    return Start(
        prompt=inputs["input_ids"],
        mask=mask,
        positions=mask.sum(1) + (0 if shift is None else shift.squeeze(1)),
        tokens=tokens,
        logprobs=_logprobs(output.logits[0], tokens) if logprobs else None,
        layers=layers,
    )


def _logprobs(logits: "torch.Tensor", tokens: "torch.Tensor") -> "torch.Tensor":
    """(N,) float32 log-probabilities of (N,) tokens by (N, vocabulary) logits."""
    logits = logits.float()
    return logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(1)


def in_batches(
    items: Sequence[Item],
    batch_size: int,
    run: Callable[[Sequence[Item]], list[Result]],
    *,
    halved: Callable[[int], object] = lambda batch_size: None,  # noqa: ARG005
) -> list[Result]:
    """Apply `run` to at most `batch_size` items at a time, halving the batches where memory does not suffice.

    Args:
        items: what to work on, in this order.
        batch_size: how many at once.
        run: gives a result for each item.
        halved: is told the batch size that it is gone on with.

    Raises:
        VisionReasonerError: memory does not even suffice for one item.
    """
    import torch

    results: list[Result] = []
    while len(results) < len(items):
        chunk = items[len(results) : len(results) + batch_size]
        try:
            results += run(chunk)
            continue
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(chunk) == 1:
                raise VisionReasonerError(
                    "out of memory with a single request; give a smaller picture, fewer --max_new_tokens, or another "
                    "--device or --dtype"
                ) from error
        batch_size = len(chunk) // 2
        halved(batch_size)
        logger.warning("out of memory with %d requests at once, going on with %d", len(chunk), batch_size)
        torch.cuda.empty_cache()  # out here, where the failed attempt's tensors are no longer held by its traceback
    return results


def _greedy_config(model: Any, tokenizer: Any, max_new_tokens: int) -> Any:
    """The checkpoint's generation config with sampling off; what acts on greedy decoding too stays as it is."""
    config = copy.deepcopy(model.generation_config)
    # Neutral values rather than None, which `generate` would fill from the model's own config again.
    config.update(do_sample=False, temperature=1.0, top_p=1.0, top_k=50, max_length=None, max_new_tokens=max_new_tokens)
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return config


def token_ends(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Where each token ends in the decoded text, in characters; one that ends inside a character, before it."""
    ends = []
    done = start = 0
    for i in range(len(tokens)):
        # Byte-level tokens decode one by one as together, but for a character whose bytes several of them share.
        piece = decode_tokens(tokenizer, tokens[start : i + 1])
        if _is_whole(piece, i + 1 - start):
            done, start = done + len(piece), i + 1
        ends.append(done)
    return ends


def decode_tokens(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of tokens, without the special ones."""
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _is_whole(piece: str, n_tokens: int) -> bool:
    """Whether what so many tokens decode to ends with a whole character; one has four bytes at most."""
    return not piece.endswith("\ufffd") or n_tokens == 4


def end_tokens(generation_config: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a reply."""
    ends = generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends)
