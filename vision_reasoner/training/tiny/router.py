"""VisionReasoner-Tiny's router: a small Qwen2 that names a request's category, trained from nothing on requests alone.

    python -m vision_reasoner.training.tiny.router --minutes 12                 # writes runs/tiny/router/
    python -m vision_reasoner.training.tiny.router --evaluate runs/tiny/router  # its figures, by the public Router

A fifth of what it reads are the scenes' requests (`requests`, never their held-out wordings), the rest a wider grammar
(`instructions`). Half of all texts are cut into other pieces than the tokenizer would choose, so that a word is known
by more than one token. The constant turns of the conversation are one token each.
"""

import json
import math
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vision_reasoner.cli import make_parser
from vision_reasoner.files import whole_folder
from vision_reasoner.geometry import Box, Point
from vision_reasoner.models.router import COUNTING, EDITING, OBJECTS, QUESTION, Router, read_category
from vision_reasoner.prompts import ROUTER_PROMPT, ROUTER_SYSTEM, router_messages
from vision_reasoner.results import Task
from vision_reasoner.scenes import instructions, requests
from vision_reasoner.scenes.classes import CLASSES, COLORS, COMPANIES, PURPOSES, SIGN
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject
from vision_reasoner.training.tiny import loop
from vision_reasoner.training.tiny.options import add_training_options

MARK = "####"
# What the reply says after the mark, as the prompt names the categories.
ANSWERS = {i + 1: f" {name}" for i, name in enumerate(re.findall(r"\d\) [\w/]+", ROUTER_PROMPT))}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The prompt's last space is left to the request, whose first word then is a token like any other.
TURNS = [f"system\n{ROUTER_SYSTEM}", f"user\n{ROUTER_PROMPT.rstrip()}", "assistant\n"]
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + ROUTER_SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY, CORPUS = 4000, 40_000  # its size, and how many requests it is learnt from
GROUP = 16  # requests that go through the model together, padded to the longest of them
SCENE_SHARE = 0.2  # of what is read, the scenes' own requests
SHARES = {OBJECTS: 3, COUNTING: 1, EDITING: 3, QUESTION: 3}  # of the grammar's; counting is the easiest to tell
SPLIT_SHARE, SPLIT = 0.5, 0.12  # of the texts, and how often two pieces stay apart in them
CATEGORY_OF = {
    Task.SEGMENTATION: OBJECTS,
    Task.DETECTION: OBJECTS,
    Task.COUNTING: COUNTING,
    Task.VQA: QUESTION,
}
CONFIG: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 448,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


# --- requests --------------------------------------------------------------------------------------------------------
def random_unpainted_scene(rng: random.Random, max_objects: int = 12) -> Scene:
    """Objects of up to five classes in cells of their own, as requests need them; the image stays blank."""
    side, cell = 280, 280 // GRID
    labels = rng.sample(range(len(CLASSES)), rng.randint(1, 5))
    if rng.random() < 0.15:
        labels[0] = SIGN
    n = rng.randint(len(labels), max_objects)
    chosen = [*labels, *(rng.choice(labels) for _ in range(n - len(labels)))]
    if SIGN in labels:
        chosen = [SIGN, *(label for label in chosen if label != SIGN)]
    rng.shuffle(chosen)
    positions = sorted(rng.sample(range(GRID * GRID), len(chosen)))
    mask = np.zeros((side, side), bool)
    objects = []
    for label, position in zip(chosen, positions, strict=True):
        row, column = divmod(position, GRID)
        x, y = column * cell + cell // 2, row * cell + cell // 2
        w, h = rng.randint(4, 60), rng.randint(4, 60)
        box = Box(max(0, x - w), max(0, y - h), min(side, x + w), min(side, y + h))
        color = rng.choice(list(COLORS)) if CLASSES[label].paintable and rng.random() < 0.8 else None
        text = rng.choice(COMPANIES) if label == SIGN else None
        objects.append(SceneObject(label, color, text, box, Point(x, y), mask, (row, column)))
    return Scene(np.zeros((side, side, 3), np.uint8), objects)


def scene_requests(rng: random.Random, held_out: bool) -> list[requests.Request]:
    """A few requests about one random scene, at least one."""
    while True:
        found = requests.random_requests(random_unpainted_scene(rng), rng, 4, held_out=held_out)
        if found:
            return found


def _pattern(wordings: Sequence[str], **slots: str) -> str:
    """A group that matches any of the wordings; slots that are not given match any text."""
    escaped = [re.escape(wording).replace("a\\ \\{n", "an?\\ \\{n") for wording in wordings]
    filled = [re.sub(r"\\\{(\w+)\\\}", lambda slot: slots.get(slot[1], ".+"), pattern) for pattern in escaped]
    return f"(?:{'|'.join(filled)})"


def held_out_pattern() -> re.Pattern[str]:
    """Matches (in lower case, without end marks) whatever is worded as one of the held-out requests.

    That is a held-out sentence whatever it is about, or an ordinary one about something in held-out words; other words
    may stand before.
    """
    r = requests
    phrases = [*r.NAMED.held_out, *r.COLORED.held_out, *r.BETWEEN.held_out]
    phrases += [w for table in (r.SIZES, r.PLACES, r.RELATIONS) for wording in table.values() for w in wording.held_out]
    phrases += [ways[-1] for _, _, ways in PURPOSES]
    noun, color = r"\w+(?: \w+)?", f"(?:{'|'.join(COLORS)})"
    thing = rf"(?:{_pattern(phrases, n=noun, N=noun, c=color)}|all the .+ and all the .+)"
    wordings = (r.SEGMENT, r.DETECT, r.COUNT, r.ASK_NAME, r.ASK_COLOR, r.ASK_THERE, r.ASK_WHAT, r.ASK_SIDE)
    side = _pattern([way for ways in r.SIDES.values() for way in ways])
    sentence = _pattern([w for wording in wordings for w in wording.held_out], r=side)
    ordinary = _pattern([w for w in (*r.SEGMENT.train, *r.DETECT.train) if w != "{it}"], it=thing)
    tail = _pattern([*r.TAILS.train, *r.TAILS.held_out])
    return re.compile(rf"(?:.* )?(?:{sentence}|{ordinary}{tail})|{thing}{tail}")


HELD_OUT = held_out_pattern()


def is_held_out(query: str) -> bool:
    """Whether the request is in a held-out wording, and so must not be trained on."""
    return HELD_OUT.fullmatch(" ".join(query.lower().replace(",", "").split()).strip(" .?!")) is not None


def random_request(rng: random.Random) -> tuple[str, int]:
    """A request to train on and its category."""
    while True:
        if rng.random() < SCENE_SHARE:
            request = rng.choice(scene_requests(rng, held_out=False))
            category = CATEGORY_OF[request.task]
            query = request.query if rng.random() < 0.5 else instructions.add_typing_noise(request.query, category, rng)
        else:
            category = rng.choices(list(SHARES), list(SHARES.values()))[0]
            query = instructions.random_instruction(category, rng)
        if query.strip() and not is_held_out(query):
            return query, category


# --- tokens ----------------------------------------------------------------------------------------------------------
def corpus(seed: int, n: int) -> Iterator[str]:
    """What the vocabulary is learnt from: requests, each after the space that the prompt ends with."""
    rng = random.Random(seed)
    for _ in range(n):
        yield f" {random_request(rng)[0]}"


def build_tokenizer(seed: int, n_requests: int) -> Any:
    """A Qwen2Tokenizer of the vocabulary of so many requests, the conversation's constant parts as added tokens."""
    from tokenizers import AddedToken, Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    bare = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[])
    words = Tokenizer(models.BPE())
    words.normalizer, words.pre_tokenizer = bare._tokenizer.normalizer, bare._tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, min_frequency=2, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    words.train_from_iterator(corpus(seed, n_requests), trainer)
    model = json.loads(words.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]],
        eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>",
        model_max_length=CONFIG["max_position_embeddings"], padding_side="left",
    )  # fmt: skip
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    ordinary = [*TURNS, MARK, *ANSWERS.values()]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ordinary])
    tokenizer.chat_template = CHAT_TEMPLATE
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


# ids (group, length), padded on the right; at (group, 3), the places whose next token is the reply's; those (group, 3)
Group = tuple[Tensor, Tensor, Tensor]


class ExampleEncoder:
    """Turns requests and their categories into tensors."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.replies = {
            category: tokenizer(f"{MARK}{answer}<|im_end|>")["input_ids"] for category, answer in ANSWERS.items()
        }

    def prompt(self, query: str, split: float = 0.0) -> list[int]:
        """The tokens of the conversation up to the reply; `split` is how often two pieces of a word stay apart."""
        text = self.tokenizer.apply_chat_template(router_messages(query), tokenize=False, add_generation_prompt=True)
        bpe = self.tokenizer.backend_tokenizer.model
        bpe.dropout = split or None
        try:
            return list(self.tokenizer(text)["input_ids"])
        finally:
            bpe.dropout = None

    def batch(self, rng: random.Random, n: int) -> list[Group]:
        """`n` requests to train on, in groups of similar length."""
        examples = []
        for _ in range(n):
            query, category = random_request(rng)
            examples.append((self.prompt(query, SPLIT if rng.random() < SPLIT_SHARE else 0.0), self.replies[category]))
        examples.sort(key=lambda example: len(example[0]))
        return [self._group(examples[i : i + GROUP]) for i in range(0, n, GROUP)]

    def _group(self, examples: Sequence[tuple[list[int], list[int]]]) -> Group:
        rows = [torch.tensor(prompt + reply[:-1]) for prompt, reply in examples]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        at = [[len(prompt) - 1 + i for i in range(len(reply))] for prompt, reply in examples]
        return ids, torch.tensor(at), torch.tensor([reply for _, reply in examples])


def losses(model: Any, examples: Sequence[Group]) -> loop.Losses:
    """Cross-entropy of the replies' tokens; padding on the right is never looked at by what stands left of it."""
    predicted, replies = [], []
    for ids, at, reply in examples:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        predicted.append(model.lm_head(hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))))
        replies.append(reply)
    logits, truth = torch.cat(predicted), torch.cat(replies)
    loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), label_smoothing=0.02)
    right = (logits.argmax(-1) == truth).all(1).float().mean()
    return loss, {"loss": loss.item(), "right": right.item()}


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the checkpoint in half precision; an earlier one there is replaced once the new one is whole."""
    half = make_model(tokenizer).half()
    half.load_state_dict(model.state_dict())
    with whole_folder(folder) as scratch:
        half.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)


# --- figures ---------------------------------------------------------------------------------------------------------
def interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in percent."""
    z = 1.96
    share, half = right / n, z * math.sqrt(right / n * (1 - right / n) / n + (z / n) ** 2 / 4)
    centre, scale = share + z * z / (2 * n), 1 + z * z / n
    return 100 * (centre - half) / scale, 100 * (centre + half) / scale


def held_out_requests(n: int, seed: int) -> list[requests.Request]:
    """`n` different requests in held-out wordings."""
    rng = random.Random(seed)
    found: dict[str, requests.Request] = {}
    while len(found) < n:
        for request in scene_requests(rng, held_out=True):
            found.setdefault(request.query, request)
    return list(found.values())[:n]


def evaluate(folder: Path, written_by_hand: Path, n: int, seed: int) -> dict[str, Any]:
    """The share of right categories on held-out wordings and on a list of requests, through the public Router.

    Args:
        folder: the router.
        written_by_hand: JSON lines with "query" and "task".
        n: how many held-out requests.
        seed: of these.
    """
    router = Router.from_pretrained(folder, device="cpu")
    held_out = held_out_requests(n, seed)
    lines = [json.loads(line) for line in written_by_hand.read_text(encoding="utf-8").splitlines() if line.strip()]
    sets = {
        "held-out wordings": [(r.query, CATEGORY_OF[r.task]) for r in held_out],
        "written by hand": [(line["query"], CATEGORY_OF[Task(line["task"])]) for line in lines],
    }
    report: dict[str, Any] = {}
    for name, rows in sets.items():
        routes = router.route_batch([query for query, _ in rows])
        right = [read_category(route.reply) == category for route, (_, category) in zip(routes, rows, strict=True)]
        low, high = interval(sum(right), len(right))
        by_category = {
            c: f"{sum(r for r, (_, k) in zip(right, rows, strict=True) if k == c)}/{sum(k == c for _, k in rows)}"
            for c in ANSWERS
        }
        report[name] = {
            "n": len(right), "right %": round(100 * sum(right) / len(right), 2),
            "95 % interval": [round(low, 2), round(high, 2)], "by category": by_category,
        }  # fmt: skip
        if name == "held-out wordings":
            tasks = sum(route.task is request.task for route, request in zip(routes, held_out, strict=True))
            report[name]["task right %"] = round(100 * tasks / len(right), 2)
    return report


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("python -m vision_reasoner.training.tiny.router", __doc__)
    add_training_options(parser, minutes=12)
    parser.set_defaults(batch_size=64)
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER", help="do not train: print the figures of a router")
    parser.add_argument(
        "--written_by_hand",
        type=Path,
        default=Path("tests/tables/router_requests.jsonl"),
        help="requests to evaluate on",
    )
    parser.add_argument("--n", type=int, default=5000, help="held-out requests to evaluate on")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.evaluate:
        print(json.dumps(evaluate(args.evaluate, args.written_by_hand, args.n, args.seed), indent=1))
        return 0
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(args.seed, CORPUS)
    model, examples = make_model(tokenizer), ExampleEncoder(tokenizer)

    def step_losses(step: int) -> loop.Losses:
        rng = random.Random(args.seed * 2_000_003 + step)
        return losses(model, examples.batch(rng, args.batch_size))

    loop.train("router", {"router": model}, step_losses, args)
    if loop.rank_and_world_size()[0] == 0:
        save(model, tokenizer, args.output_dir / "router")
    return 0


if __name__ == "__main__":
    sys.exit(main())
