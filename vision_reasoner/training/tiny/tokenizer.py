"""The tokenizer and processor of VisionReasoner-Tiny: Qwen2's and Qwen2.5-VL's, with a vocabulary of our own.

Every word of the world's language is one token. So are coordinates and the constant parts of the prompt and of the
JSON: these are added tokens but no *special* ones, so that decoding gives them back as plain text.
"""

import json
from collections.abc import Iterable
from typing import Any

from vision_reasoner.prompts import VISION_REASONER
from vision_reasoner.scenes import requests
from vision_reasoner.scenes.classes import CLASSES, COLORS, COMPANIES, PURPOSES
from vision_reasoner.training.tiny.architecture import SIDE

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
THINK = "<think>"
FIRST, NEXT, MIDDLE = '</think><answer>[{"bbox_2d": [', ']}, {"bbox_2d": [', '], "point_2d": ['
LAST, NOTHING = "]}]</answer>", "</think><answer>[]</answer>"
PROMPT_HEAD, PROMPT_TAIL = VISION_REASONER.prompt.split("{query}")
SYSTEM = "system\nYou are a helpful assistant."
MOST = 20  # the largest number that is said in words

# One user turn with its images, as Qwen2.5-VL's own template renders it; the processor widens <|image_pad|>.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def coordinates(comma: bool) -> list[str]:
    """The tokens for 0 … SIDE, in order: "7," inside a list, "7" at its end."""
    return [f"{i}{',' if comma else ''}" for i in range(SIDE + 1)]


def added_tokens() -> list[str]:
    """Every token that is not found by BPE, in the order of their ids."""
    compounds = [n for c in CLASSES for n in (c.name, c.plural) if " " in n]
    return [
        *coordinates(True),
        *coordinates(False),
        *(f" {i}" for i in range(MOST + 1)),
        THINK,
        FIRST,
        NEXT,
        MIDDLE,
        LAST,
        NOTHING,
        PROMPT_HEAD,
        PROMPT_TAIL,
        SYSTEM,
        "user\n",
        "assistant\n",
        *compounds,
        *(f" {n}" for n in compounds),
    ]


def corpus() -> Iterable[str]:
    """Every word that requests, thinking and answers are made of, as it stands in them."""
    wordings = [w for w in vars(requests).values() if isinstance(w, requests.Wording)]
    wordings += [w for table in (requests.SIZES, requests.PLACES, requests.RELATIONS) for w in table.values()]
    sentences = [t for w in wordings for t in w.train]
    sentences += [way for _, _, ways in PURPOSES for way in ways[:-1]]
    sentences += [f"Something that {sentence}: nothing." for sentence, _, _ in PURPOSES]
    sentences += [*requests.PLACES, *requests.RELATIONS, *requests.SIZES, *COMPANIES, *COLORS, "yes", "no", "and"]
    sentences += [f" {ways}" for options in requests.SIDES.values() for ways in options]
    sentences += [
        "There is no",
        "There are",
        "Of the",
        "the is at (",
        "). The it is at",
        " between them is at",
        "is an a",
    ]
    for sentence in sentences:
        plain = sentence.replace("{", " ").replace("}", " ")
        yield from (plain, plain[:1].upper() + plain[1:])
    for noun in [*COLORS, *(n for c in CLASSES for n in (c.name, c.plural))]:
        yield from (noun, f"the {noun}")


def build_tokenizer() -> Any:
    """A Qwen2Tokenizer whose vocabulary holds all of the above."""
    from tokenizers import AddedToken, Tokenizer, models, trainers
    from transformers import Qwen2Tokenizer

    bare = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[])
    words = Tokenizer(models.BPE())
    words.normalizer, words.pre_tokenizer = bare._tokenizer.normalizer, bare._tokenizer.pre_tokenizer
    from tokenizers.pre_tokenizers import ByteLevel

    trainer = trainers.BpeTrainer(
        vocab_size=20_000, min_frequency=1, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    words.train_from_iterator(corpus(), trainer)
    model = json.loads(words.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(m) for m in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=4096,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in added_tokens()])
    return tokenizer


def build_processor() -> Any:
    """Qwen2.5-VL's processor around it, for images of SIDE x SIDE."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = {"min_pixels": 28 * 28, "max_pixels": SIDE * SIDE, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        video_processor=Qwen2VLVideoProcessor(**pixels),
        tokenizer=build_tokenizer(),
        chat_template=CHAT_TEMPLATE,
    )
