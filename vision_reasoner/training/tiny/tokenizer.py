"""The tokenizers and the processor of VisionReasoner-Tiny: Qwen2's and Qwen2.5-VL's classes with small vocabularies.

In the reasoner's tokenizer every word that occurs in requests, thinking and answers is one token. Coordinates and the
constant parts of the prompt and of the JSON are one token each, too: added tokens, but not *special* ones, so that
decoding gives them back as plain text.
"""

import json
from collections.abc import Iterable, Sequence
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
SYSTEM_PROMPT = "You are a helpful assistant."
VOCABULARY = 20_000  # at most: merges end when every word of the corpus is one token
MAX_LENGTH = 4096  # tokens
MAX_COUNT = 20  # the largest count that is one token


def coordinates(comma: bool) -> list[str]:
    """The tokens for 0 … SIDE, in order: "7," inside a list, "7" at its end."""
    return [f"{i}{',' if comma else ''}" for i in range(SIDE + 1)]


def added_tokens() -> list[str]:
    """The tokens that BPE does not learn, in the order of their ids."""
    compounds = [n for c in CLASSES for n in (c.name, c.plural) if " " in n]
    return [
        *coordinates(True),
        *coordinates(False),
        *(f" {i}" for i in range(MAX_COUNT + 1)),
        THINK,
        FIRST,
        NEXT,
        MIDDLE,
        LAST,
        NOTHING,
        PROMPT_HEAD,
        PROMPT_TAIL,
        f"system\n{SYSTEM_PROMPT}",
        "user\n",
        "assistant\n",
        *compounds,
        *(f" {n}" for n in compounds),
    ]


def corpus() -> Iterable[str]:
    """Texts that contain every word of requests, thinking and answers, in the form in which they contain it."""
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


def chat_template(system_prompt: str) -> str:
    """Qwen's chat template: turns of text or of images and text, which the processor's image tokens then replace.

    Args:
        system_prompt: of conversations that have no system turn of their own.
    """
    return (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + system_prompt + "<|im_end|>\n{% endif %}"
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
        "<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def train_tokenizer(
    texts: Iterable[str], *, vocabulary: int, min_frequency: int, special: Sequence[str], added: Sequence[str]
) -> Any:
    """A Qwen2Tokenizer whose merges are learned from texts.

    Args:
        texts: what the byte-pair encoding is trained on.
        vocabulary: number of its tokens, at most.
        min_frequency: how often a pair has to occur to be merged.
        special: special tokens, which decoding may skip; "<|im_end|>" ends a sequence, "<|endoftext|>" pads it.
        added: other tokens that are never split, and that decoding always gives back.
    """
    from tokenizers import AddedToken, Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    bare = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[])
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = bare._tokenizer.normalizer, bare._tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=min_frequency,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(m) for m in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=MAX_LENGTH,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in added])
    return tokenizer


def build_tokenizer() -> Any:
    """The reasoner's tokenizer."""
    return train_tokenizer(corpus(), vocabulary=VOCABULARY, min_frequency=1, special=SPECIAL, added=added_tokens())


def build_processor() -> Any:
    """Qwen2.5-VL's processor with the reasoner's tokenizer, for images of at most SIDE x SIDE pixels."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = {"min_pixels": 28 * 28, "max_pixels": SIDE * SIDE, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        video_processor=Qwen2VLVideoProcessor(**pixels),
        tokenizer=build_tokenizer(),
        chat_template=chat_template(SYSTEM_PROMPT),
    )
