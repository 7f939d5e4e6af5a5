"""What router and reasoner share: loading a transformers model, and greedy decoding of a left-padded batch.

Knows nothing of tasks or pictures; a batch is whatever the tokenizer or processor made of it.
"""

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vision_reasoner.errors import CheckpointError, ImageError, VisionReasonerError
from vision_reasoner.models.checkpoints import Part, check_transformers_folder, load_errors, weight_bytes
from vision_reasoner.models.devices import choose_attention, choose_device, choose_dtype, is_out_of_memory

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Decoded:
    """What a model wrote for one row of a batch.

    Attributes:
        text: without special tokens.
        finished: whether the model ended it itself; False where the token limit cut it off.
        n_tokens: new tokens, the end token included.
        see_seconds: until the first token (for the reasoner: looking at the picture), this row's share of the batch.
        think_seconds: the rest, this row's share.
        logprobs: for each token of `text` where it ends there (characters) and its log-probability, if asked for.
    """

    text: str
    finished: bool
    n_tokens: int
    see_seconds: float
    think_seconds: float
    logprobs: tuple[tuple[int, float], ...] = ()


def load_model(
    classes: Mapping[str, Any], folder: Path, part: Part, *, device: str, dtype: str, attn_implementation: str
) -> Any:
    """Load a checkpoint's weights for inference, from safetensors only and without running code of the folder.

    Args:
        classes: the transformers class for each `model_type` that the part may have.
        folder: the checkpoint.
        part: what it is to be used as.
        device: a torch device or "auto".
        dtype: one of `devices.DTYPES`.
        attn_implementation: one of `devices.ATTENTIONS`.

    Raises:
        CheckpointError: it is incomplete, of another kind, or does not load.
        UsageError: there is no such device, dtype or attention.
    """
    where = choose_device(device)
    number_format = choose_dtype(dtype, where, weight_bytes(folder))
    attention = choose_attention(attn_implementation, where, number_format)
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
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(
            f"{folder}: incomplete, {len(missing)} weights are missing (first {missing[0]}); download it again"
        )
    logger.debug("%s: %s on %s, %s, %s attention", folder, type(model).__name__, where, number_format, attention)
    if model.generation_config.repetition_penalty not in (None, 1.0):
        logger.debug("%s: repetition_penalty %s is kept", folder, model.generation_config.repetition_penalty)
    return model.eval()


def check_text(text: str, tokenizer: Any) -> None:
    """Reject a query, as it stands in the prompt, that is empty, not valid Unicode, or contains special tokens.

    Raises:
        ImageError: it is one of these.
    """
    if not text.strip():
        raise ImageError("the query is empty; say what to find, count or answer")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ImageError("the query is not valid Unicode text; check its encoding") from error
    special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = special.keys() & set(tokenizer(text, add_special_tokens=False)["input_ids"])
    if found:
        raise ImageError(f"the query contains the model's control token {special[min(found)]!r}; leave it out")


def decode_greedily(
    model: Any, tokenizer: Any, batch: Mapping[str, "torch.Tensor"], max_new_tokens: int, *, logprobs: bool = False
) -> list[Decoded]:
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

    Returns:
        One for each of the N rows.

    Raises:
        ImageError: the prompt alone is longer than the checkpoint can take.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Watch(StoppingCriteria):
        """Stops nothing, notes when the first token was there and, where wanted, how likely each one was."""

        first_seconds = 0.0

        def __init__(self) -> None:
            self.logits: torch.Tensor | None = None  # of the step that is on: (N, 1, vocabulary)
            self.logprobs: list[torch.Tensor] = []  # (N,) for each step

        def see_logits(self, module: Any, inputs: Any, logits: torch.Tensor) -> None:  # noqa: ARG002
            self.logits = logits

        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
            if not self.first_seconds:
                input_ids[0, -1].item()  # waits for the device
                self.first_seconds = time.perf_counter() - start
            if self.logits is not None:
                step = self.logits[:, -1].float()
                self.logprobs.append(step.gather(1, input_ids[:, -1:]).squeeze(1) - step.logsumexp(1))
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    n_rows, n_prompt = batch["input_ids"].shape
    positions = model.config.get_text_config().max_position_embeddings
    if n_prompt >= positions:
        raise ImageError(
            f"picture and query make {n_prompt} tokens, and the checkpoint takes {positions}; shorten the query"
        )
    watch = Watch()
    hook = model.get_output_embeddings().register_forward_hook(watch.see_logits) if logprobs else nullcontext()
    start = time.perf_counter()
    with torch.inference_mode(), hook:
        output = model.generate(
            **{name: tensor.to(model.device) for name, tensor in batch.items()},
            generation_config=_greedy_config(model, tokenizer, min(max_new_tokens, positions - n_prompt)),
            stopping_criteria=StoppingCriteriaList([watch]),
        )
    new_tokens = output[:, n_prompt:].tolist()
    seconds = time.perf_counter() - start
    likely = torch.stack(watch.logprobs, dim=1).tolist() if watch.logprobs else [[]] * n_rows
    ends = _end_tokens(model, tokenizer)
    decoded = []
    for row, row_logprobs in zip(new_tokens, likely, strict=True):
        end = next((i for i, token in enumerate(row) if token in ends), None)
        kept = row if end is None else row[:end]
        decoded.append(
            Decoded(
                text=tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False),
                finished=end is not None,
                n_tokens=len(row) if end is None else end + 1,
                see_seconds=watch.first_seconds / n_rows,
                think_seconds=(seconds - watch.first_seconds) / n_rows,
                logprobs=tuple(zip(_token_ends(tokenizer, kept), row_logprobs, strict=False)) if logprobs else (),
            )
        )
    return decoded


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


def _token_ends(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Where each token ends in the decoded text, in characters; one that ends inside a character, before it."""
    ends = []
    done = start = 0
    for i in range(len(tokens)):
        # Byte-level tokens decode one by one as together, but for a character whose bytes several of them share.
        piece = tokenizer.decode(tokens[start : i + 1], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not piece.endswith("\ufffd") or i - start == 3:  # a character has four bytes at most
            done, start = done + len(piece), i + 1
        ends.append(done)
    return ends


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends)
