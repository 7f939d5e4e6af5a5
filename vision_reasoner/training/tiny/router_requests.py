"""Requests that the router is trained and measured on, each with its category.

A fifth are the scenes' requests (`scenes.requests`, never in held-out wordings), the rest come from a wider grammar
(`scenes.instructions`).
"""

import random
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from vision_reasoner.geometry import Box, Point
from vision_reasoner.models.router import COUNTING, EDITING, OBJECTS, QUESTION
from vision_reasoner.results import Task
from vision_reasoner.scenes import instructions, requests
from vision_reasoner.scenes.classes import CLASSES, COLORS, COMPANIES, PURPOSES, SIGN
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject

SCENE_SHARE = 0.2  # of training requests are the scenes' own
CLEAN_SHARE = 0.5  # of the scenes' own requests stay without typing noise
GRAMMAR_WEIGHTS = {OBJECTS: 3, COUNTING: 1, EDITING: 3, QUESTION: 3}  # counting is the easiest to recognize
CATEGORY_OF = {
    Task.SEGMENTATION: OBJECTS,
    Task.DETECTION: OBJECTS,
    Task.COUNTING: COUNTING,
    Task.VQA: QUESTION,
}
FRAME_SIDE, MAX_CLASSES, MAX_OBJECTS = 280, 5, 12  # of scenes that are laid out without being painted
HALF_SIDE = (4, 60)  # pixels: half of an object's width and height
SIGN_SHARE, PAINTED_SHARE = 0.15, 0.8
REQUESTS_PER_SCENE = 4


def random_unpainted_scene(rng: random.Random, max_objects: int = MAX_OBJECTS) -> Scene:
    """Objects of up to MAX_CLASSES classes in cells of their own: all that requests need. The image stays black."""
    side, cell = FRAME_SIDE, FRAME_SIDE // GRID
    labels = rng.sample(range(len(CLASSES)), rng.randint(1, MAX_CLASSES))
    if rng.random() < SIGN_SHARE:
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
        w, h = rng.randint(*HALF_SIDE), rng.randint(*HALF_SIDE)
        box = Box(max(0, x - w), max(0, y - h), min(side, x + w), min(side, y + h))
        color = rng.choice(list(COLORS)) if CLASSES[label].paintable and rng.random() < PAINTED_SHARE else None
        text = rng.choice(COMPANIES) if label == SIGN else None
        objects.append(SceneObject(label, color, text, box, Point(x, y), mask, (row, column)))
    return Scene(np.zeros((side, side, 3), np.uint8), objects)


def scene_requests(rng: random.Random, held_out: bool) -> list[requests.Request]:
    """One to REQUESTS_PER_SCENE requests about a random scene."""
    while True:
        found = requests.random_requests(random_unpainted_scene(rng), rng, REQUESTS_PER_SCENE, held_out=held_out)
        if found:
            return found


def _pattern(wordings: Sequence[str], **slots: str) -> str:
    """A group that matches any of the wordings; slots that are not given match any text."""
    escaped = [re.escape(wording).replace("a\\ \\{n", "an?\\ \\{n") for wording in wordings]
    filled = [re.sub(r"\\\{(\w+)\\\}", lambda slot: slots.get(slot[1], ".+"), pattern) for pattern in escaped]
    return f"(?:{'|'.join(filled)})"


@lru_cache
def held_out_pattern() -> re.Pattern[str]:
    """Matches requests (in lower case, without end marks) in held-out wordings.

    That is a held-out sentence about anything, or an ordinary sentence about something in held-out words. Other words
    may precede it.
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


def is_held_out(query: str) -> bool:
    """Whether the request has a held-out wording and must not be trained on."""
    return held_out_pattern().fullmatch(" ".join(query.lower().replace(",", "").split()).strip(" .?!")) is not None


def random_request(rng: random.Random) -> tuple[str, int]:
    """A training request and its category."""
    while True:
        if rng.random() < SCENE_SHARE:
            request = rng.choice(scene_requests(rng, held_out=False))
            category = CATEGORY_OF[request.task]
            query = (
                request.query
                if rng.random() < CLEAN_SHARE
                else instructions.add_typing_noise(request.query, category, rng)
            )
        else:
            category = rng.choices(list(GRAMMAR_WEIGHTS), list(GRAMMAR_WEIGHTS.values()))[0]
            query = instructions.random_instruction(category, rng)
        if query.strip() and not is_held_out(query):
            return query, category


def held_out_requests(n: int, seed: int) -> list[requests.Request]:
    """`n` different requests in held-out wordings."""
    rng = random.Random(seed)
    found: dict[str, requests.Request] = {}
    while len(found) < n:
        for request in scene_requests(rng, held_out=True):
            found.setdefault(request.query, request)
    return list(found.values())[:n]
