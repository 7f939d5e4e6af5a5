"""VisionReasoner-Tiny's router: a small Qwen2 that names a request's category, trained from scratch on requests alone.

    python -m vision_reasoner.training.tiny.router --minutes 12                 # writes runs/tiny/router/
    python -m vision_reasoner.training.tiny.router --evaluate runs/tiny/router  # its accuracy, by the public Router

The requests are in `router_requests`. Half of all texts are tokenized with BPE dropout (Provilkov et al., 2020), so
that a word is known by more than one segmentation. The constant turns of the conversation are one token each.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import DataError, ExitCode
from vision_reasoner.files import atomic_folder
from vision_reasoner.models.router import Router, read_category
from vision_reasoner.prompts import ROUTER_PROMPT, ROUTER_SYSTEM, router_messages
from vision_reasoner.results import Task
from vision_reasoner.training.tiny.options import add_training_options, positive_int
from vision_reasoner.training.tiny.router_requests import CATEGORY_OF, held_out_requests, random_request

if TYPE_CHECKING:
    from torch import Tensor

    from vision_reasoner.training.tiny import loop

    # ids (group, length), padded on the right; places (group, 3) whose next tokens are the reply's; reply (group, 3)
    Group = tuple[Tensor, Tensor, Tensor]

MARK = "####"
# The reply's text after the mark: the categories' names in the prompt
ANSWERS = {i + 1: f" {name}" for i, name in enumerate(re.findall(r"\d\) [\w/]+", ROUTER_PROMPT))}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The prompt's last space is left to the request, whose first word then is a token like any other
TURNS = [f"system\n{ROUTER_SYSTEM}", f"user\n{ROUTER_PROMPT.rstrip()}", "assistant\n"]
VOCABULARY = 4000  # tokens, at most: the embedding is a third of the model's parameters
CORPUS, MIN_FREQUENCY = 40_000, 2  # requests that the vocabulary is learned from, and how often a merge occurs in them
GROUP = 16  # requests of similar length that are padded to the longest of them
BPE_DROPOUT_SHARE, BPE_DROPOUT = 0.5, 0.12  # share of the texts, and the probability that a merge is skipped in them
LABEL_SMOOTHING = 0.02  # categories of a few requests are debatable
CONFIG: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 448,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.router", __doc__)
    add_training_options(parser, minutes=12, batch_size=64)
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER", help="do not train: print a router's accuracy")
    parser.add_argument(
        "--written_by_hand",
        type=Path,
        default=Path("tests/tables/router_requests.jsonl"),
        help="requests to evaluate on (default: %(default)s)",
    )
    parser.add_argument(
        "--n", type=positive_int, default=5000, help="held-out requests to evaluate on (default: %(default)s)"
    )
    return run_command(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Train the router and write `output_dir/router`, or print the accuracy of one."""
    from vision_reasoner.seeds import seeded
    from vision_reasoner.training.tiny import loop

    if args.evaluate:
        print(json.dumps(evaluate(args.evaluate, args.written_by_hand, args.n, args.seed), indent=1))
        return ExitCode.OK
    loop.set_up(args)
    tokenizer = build_tokenizer(args.seed, CORPUS)
    model, encoder = make_model(tokenizer), ExampleEncoder(tokenizer)

    def step_losses(step: int) -> loop.Losses:
        return losses(model, encoder.batch(seeded("router", args.seed, step), args.batch_size))

    loop.train("router", {"router": model}, step_losses, args)
    if loop.rank_and_world_size()[0] == 0:
        save(model, tokenizer, args.output_dir / "router")
    return ExitCode.OK


# --- tokens ----------------------------------------------------------------------------------------------------------
def corpus(seed: int, n: int) -> Iterator[str]:
    """Requests that the vocabulary is learned from, each after the space that the prompt ends with."""
    rng = random.Random(seed)
    for _ in range(n):
        yield f" {random_request(rng)[0]}"


def build_tokenizer(seed: int, n_requests: int) -> Any:
    """A Qwen2Tokenizer learned from so many requests, with the conversation's constant parts as added tokens."""
    from vision_reasoner.training.tiny.tokenizer import chat_template, train_tokenizer

    tokenizer = train_tokenizer(
        corpus(seed, n_requests),
        vocabulary=VOCABULARY,
        min_frequency=MIN_FREQUENCY,
        special=SPECIAL,
        added=[*TURNS, MARK, *ANSWERS.values()],
    )
    tokenizer.chat_template = chat_template(ROUTER_SYSTEM)
    return tokenizer


def make_model(tokenizer: Any) -> Any:
    """A Qwen2ForCausalLM of this shape, with fresh weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2Config(vocab_size=len(tokenizer), **CONFIG, **ends)
    config._attn_implementation = "sdpa"
    model = Qwen2ForCausalLM(config)
    model.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None, **ends)
    return model


class ExampleEncoder:
    """Encodes requests and their categories as tensors."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.replies = {
            category: tokenizer(f"{MARK}{answer}<|im_end|>")["input_ids"] for category, answer in ANSWERS.items()
        }

    def prompt(self, query: str, dropout: float = 0.0) -> list[int]:
        """The tokens of the conversation up to the reply; `dropout` is the probability that BPE skips a merge."""
        text = self.tokenizer.apply_chat_template(router_messages(query), tokenize=False, add_generation_prompt=True)
        bpe = self.tokenizer.backend_tokenizer.model
        bpe.dropout = dropout or None
        try:
            return list(self.tokenizer(text)["input_ids"])
        finally:
            bpe.dropout = None

    def batch(self, rng: random.Random, n: int) -> list[Group]:
        """`n` training requests in groups of similar length."""
        examples = []
        for _ in range(n):
            query, category = random_request(rng)
            dropout = BPE_DROPOUT if rng.random() < BPE_DROPOUT_SHARE else 0.0
            examples.append((self.prompt(query, dropout), self.replies[category]))
        examples.sort(key=lambda example: len(example[0]))
        return [self._group(examples[i : i + GROUP]) for i in range(0, n, GROUP)]

    def _group(self, examples: Sequence[tuple[list[int], list[int]]]) -> Group:
        import torch

        rows = [torch.tensor(prompt + reply[:-1]) for prompt, reply in examples]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        at = [[len(prompt) - 1 + i for i in range(len(reply))] for prompt, reply in examples]
        return ids, torch.tensor(at), torch.tensor([reply for _, reply in examples])


def losses(model: Any, groups: Sequence[Group]) -> loop.Losses:
    """Cross-entropy of the replies' tokens. Causal attention never sees the padding, which is on the right."""
    import torch
    from torch.nn import functional as F

    predicted, replies = [], []
    for ids, places, reply in groups:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        predicted.append(model.lm_head(hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))))
        replies.append(reply)
    logits, truth = torch.cat(predicted), torch.cat(replies)
    loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), label_smoothing=LABEL_SMOOTHING)
    right = (logits.argmax(-1) == truth).all(1).float().mean()
    return loss, {"loss": loss.item(), "right": right.item()}


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the checkpoint in half precision; an earlier one there is replaced once the new one is complete."""
    half = make_model(tokenizer).half()
    half.load_state_dict(model.state_dict())
    with atomic_folder(folder) as scratch:
        half.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)


# --- evaluation ------------------------------------------------------------------------------------------------------
def evaluate(folder: Path, written_by_hand: Path, n: int, seed: int) -> dict[str, Any]:
    """The share of right categories on held-out wordings and on a list of requests, through the public Router.

    Args:
        folder: the router.
        written_by_hand: JSON lines with "query" and "task".
        n: number of held-out requests.
        seed: of these.

    Raises:
        DataError: the file of requests cannot be read.
    """
    router = Router.from_pretrained(folder, device="cpu")
    held_out = held_out_requests(n, seed)
    by_hand = _read_requests(written_by_hand)
    report: dict[str, Any] = {}
    for name, requests in (("held-out wordings", [(r.query, r.task) for r in held_out]), ("written by hand", by_hand)):
        routes = router.route_batch([query for query, _ in requests])
        report[name] = _accuracy([route.reply for route in routes], [CATEGORY_OF[task] for _, task in requests])
        if name == "held-out wordings":
            tasks = sum(route.task is task for route, (_, task) in zip(routes, requests, strict=True))
            report[name]["task right %"] = round(100 * tasks / len(routes), 2)
    return report


def _read_requests(path: Path) -> list[tuple[str, Task]]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [(line["query"], Task(line["task"])) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as JSON lines with query and task ({error})") from error


def _accuracy(replies: Sequence[str], categories: Sequence[int]) -> dict[str, Any]:
    """The share of replies that name the right category, in percent, with Wilson's 95 % interval; and by category."""
    from scipy.stats import binomtest

    right = [read_category(reply) == category for reply, category in zip(replies, categories, strict=True)]
    interval = binomtest(sum(right), len(right)).proportion_ci(method="wilson")
    return {
        "n": len(right),
        "right %": round(100 * sum(right) / len(right), 2),
        "95 % interval": [round(100 * float(interval.low), 2), round(100 * float(interval.high), 2)],
        "by category": {
            c: f"{sum(r for r, k in zip(right, categories, strict=True) if k == c)}/{categories.count(c)}"
            for c in ANSWERS
        },
    }


if __name__ == "__main__":
    sys.exit(main())
