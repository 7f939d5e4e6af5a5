"""What can be asked of a scene, in many wordings, and the right answer with the thinking that leads to it.

Each kind of request is one small function from a scene to a `Request`, or None where the scene does not offer it.
Wordings come in two sets: one to train on, one held out. This module knows nothing of tokens or models.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from vision_reasoner.results import Task
from vision_reasoner.scenes.classes import CLASS_INDEX, CLASSES, COLORS, PURPOSES, SIGN
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject

NOWHERE = -2  # a Piece's look


@dataclass(frozen=True)
class Piece:
    """A stretch of a reply.

    Attributes:
        text: what is written.
        look: the object (index into the scene's) that one looks at to write it; NOWHERE where one sees that there is
            no further one, None where the picture does not matter.
        about: the class (index into CLASSES) it is about, None where that follows from `look`, or it is about none.
        nth: number among those that are being listed of the object that is due, be there one or not; None outside
            lists.
        via: the object that one must find first to know where to look, None where the words say it.
    """

    text: str
    look: int | None = None
    about: int | None = None
    nth: int | None = None
    via: int | None = None


def place_of(cell: tuple[int, int], side: int) -> str:
    """ " (98,70": x and y of the cell's middle in the frame; the closing bracket belongs to what follows."""
    row, column = cell
    x, y = ((2 * k + 1) * side // (2 * GRID) for k in (column, row))
    return f" ({x},{y}"


@dataclass(frozen=True)
class Request:
    """One request and its right answer.

    Attributes:
        task: what the router should make of it.
        kind: the family it belongs to; figures are reported by it.
        query: in plain words.
        targets: indices into the scene's objects, in the order in which the answer lists them.
        thinking: what decides.
        answer: of a VQA request; None otherwise.
    """

    task: Task
    kind: str
    query: str
    targets: tuple[int, ...] = ()
    thinking: tuple[Piece, ...] = ()
    answer: Piece | None = None


@dataclass
class Wording:
    """Wordings for one purpose: those trained on, and those held out."""

    train: Sequence[str]
    held_out: Sequence[str]

    def pick(self, rng: Random, held_out: bool) -> str:
        return rng.choice(self.held_out if held_out else self.train)


# {one} "the dog", {all} "the dogs", {bare} "dog"/"dogs"
SEGMENT = Wording(
    (
        "find {it}",
        "segment {it}",
        "please segment {it}",
        "where is {it}",
        "where are {it}",
        "show me {it}",
        "mark {it}",
        "{it}",
        "outline {it}",
        "can you find {it}",
        "i am looking for {it}",
        "point out {it}",
        "highlight {it}",
        "cut out {it}",
        "give me the mask of {it}",
        "please find {it}",
        "look for {it}",
        "i want to see {it}",
        "could you segment {it}",
        "select {it}",
        "show {it}",
        "please mark {it}",
    ),
    (
        "please show me {it}",
        "could you find {it}",
        "can you segment {it}",
        "please highlight {it}",
        "i am looking for the mask of {it}",
    ),
)
DETECT = Wording(
    (
        "detect {it}",
        "draw a box around {it}",
        "detect {it} with boxes",
        "locate {it} with a bounding box",
        "give me the bounding box of {it}",
        "please detect {it}",
        "put a box on {it}",
        "report the boxes of {it}",
        "draw bounding boxes around {it}",
    ),
    ("can you detect {it}", "please draw a bounding box around {it}", "give me the boxes of {it}"),
)
COUNT = Wording(
    (
        "how many {N} are there in this image",
        "how many {N} are there",
        "count the {N}",
        "how many {N} can you see",
        "what is the number of {N}",
        "tell me how many {N} there are",
        "count all {N}",
        "how many {N} are in the picture",
        "please count the {N}",
        "the number of {N}",
        "how many {N} do you see in the image",
        "find out how many {N} there are",
    ),
    (
        "how many {N} do you see",
        "please tell me the number of {N}",
        "count all the {N} in this picture",
        "can you count the {N}",
    ),
)
TAILS = Wording(
    ("", "", "", "", " in the image", " in this image", " in the picture", " please", " for me"),
    ("", "", " in this picture", " here"),
)
NAMED = Wording(
    ("the {n}", "all {N}", "the {N}", "every {n}", "{N}", "{n}", "all the {N}", "a {n}", "each {n}"),
    ("any {n}", "all of the {N}"),
)
COLORED = Wording(
    ("the {c} {n}", "all {c} {N}", "the {c} {N}", "every {c} {n}", "the {n} that is {c}", "the {N} that are {c}"),
    ("all the {c} {N}", "each {c} {n}"),
)
SIZES: dict[str, Wording] = {
    "largest": Wording(
        ("the largest {n}", "the biggest {n}", "the {n} that is the largest", "the largest of the {N}"),
        ("the biggest of the {N}", "the {n} that is the biggest"),
    ),
    "smallest": Wording(
        ("the smallest {n}", "the tiniest {n}", "the {n} that is the smallest", "the smallest of the {N}"),
        ("the tiniest of the {N}", "the {n} that is the tiniest"),
    ),
}
PLACES: dict[str, Wording] = {
    "leftmost": Wording(
        ("the leftmost {n}", "the {n} on the far left", "the {n} furthest to the left", "the first {n} from the left"),
        ("the leftmost of the {N}", "the {n} at the far left"),
    ),
    "rightmost": Wording(
        (
            "the rightmost {n}",
            "the {n} on the far right",
            "the {n} furthest to the right",
            "the first {n} from the right",
        ),
        ("the rightmost of the {N}", "the {n} at the far right"),
    ),
    "topmost": Wording(
        ("the topmost {n}", "the {n} at the top", "the highest {n}", "the uppermost {n}"),
        ("the topmost of the {N}", "the {n} furthest to the top"),
    ),
    "lowest": Wording(
        ("the lowest {n}", "the {n} at the bottom", "the bottom {n}", "the lowermost {n}"),
        ("the lowest of the {N}", "the {n} furthest to the bottom"),
    ),
    "top left": Wording(
        ("the top left {n}", "the {n} in the top left corner", "the {n} at the top left"),
        ("the {n} closest to the top left corner",),
    ),
    "top right": Wording(
        ("the top right {n}", "the {n} in the top right corner", "the {n} at the top right"),
        ("the {n} closest to the top right corner",),
    ),
    "bottom left": Wording(
        ("the bottom left {n}", "the {n} in the bottom left corner", "the {n} at the bottom left"),
        ("the {n} closest to the bottom left corner",),
    ),
    "bottom right": Wording(
        ("the bottom right {n}", "the {n} in the bottom right corner", "the {n} at the bottom right"),
        ("the {n} closest to the bottom right corner",),
    ),
}
RELATIONS: dict[str, Wording] = {
    "next to": Wording(
        ("the {n} next to the {m}", "the {n} closest to the {m}", "the {n} near the {m}", "the {n} beside the {m}"),
        ("the {n} that is closest to the {m}", "the {n} right next to the {m}"),
    ),
    "above": Wording(
        ("the {n} above the {m}", "the {n} over the {m}", "the {n} that is above the {m}"),
        ("the {n} right above the {m}", "the {n} that is over the {m}"),
    ),
    "below": Wording(
        ("the {n} below the {m}", "the {n} under the {m}", "the {n} that is below the {m}"),
        ("the {n} right below the {m}", "the {n} that is under the {m}"),
    ),
    "left of": Wording(
        ("the {n} to the left of the {m}", "the {n} left of the {m}", "the {n} on the left of the {m}"),
        ("the {n} that is to the left of the {m}",),
    ),
    "right of": Wording(
        ("the {n} to the right of the {m}", "the {n} right of the {m}", "the {n} on the right of the {m}"),
        ("the {n} that is to the right of the {m}",),
    ),
}
BETWEEN = Wording(
    ("the {n} between the {m} and the {k}", "the {n} in the middle of the {m} and the {k}"),
    ("the {n} that is between the {m} and the {k}",),
)
ASK_NAME = Wording(
    (
        "what is the name of the company",
        "what is name of the company",
        "what does the sign say",
        "which company is it",
        "what is written on the sign",
        "what is the company called",
        "read the sign",
        "what is the name on the sign",
        "whose sign is it",
    ),
    ("what is the name of this company", "which name is written on the sign", "what does it say on the sign"),
)
ASK_COLOR = Wording(
    (
        "what color is the {n}",
        "what colour is the {n}",
        "which color is the {n}",
        "what is the color of the {n}",
        "which colour has the {n}",
    ),
    ("what is the colour of the {n}", "which colour is the {n}", "tell me the color of the {n}"),
)
ASK_THERE = Wording(
    ("is there a {n}", "is there any {n}", "are there any {N}", "can you see a {n}", "does the image show a {n}"),
    ("do you see a {n}", "does the picture show any {n}"),
)
ASK_WHAT = Wording(
    (
        "what is this",
        "what is shown here",
        "what is in the picture",
        "what does the image show",
        "what can you see",
        "name the object",
    ),
    ("what is in this image", "what does this picture show"),
)
ASK_SIDE = Wording(
    ("what is {r} the {m}", "what can be seen {r} the {m}", "which object is {r} the {m}", "what stands {r} the {m}"),
    ("which thing is {r} the {m}", "what is there {r} the {m}"),
)
SIDES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below", "under"),
}


def article(noun: str) -> str:
    """ "a dog", "an apple"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def number_of(label: int, n: int, color: str = "") -> str:
    """ "1 red cup", "3 red cups", "no red cup"; without the leading number's blank."""
    noun = CLASSES[label].name if n < 2 else CLASSES[label].plural
    return f"{n or 'no'} {color + ' ' if color else ''}{noun}"


@dataclass
class View:
    """A scene as requests see it: who is where, which classes there are; `side` is the frame thinking speaks of."""

    scene: Scene
    rng: Random
    held_out: bool = False
    side: int = 280
    by_label: dict[int, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_label = {}
        for i, o in enumerate(self.scene.objects):
            self.by_label.setdefault(o.label, []).append(i)

    @property
    def objects(self) -> list[SceneObject]:
        return self.scene.objects

    def centre(self, i: int) -> tuple[float, float]:
        """In the frame."""
        b = self.objects[i].box
        w, h = self.scene.size
        return (b.x1 + b.x2) / 2 / w * self.side, (b.y1 + b.y2) / 2 / h * self.side

    def area(self, i: int) -> float:
        """Of the box, in the frame."""
        b = self.objects[i].box
        w, h = self.scene.size
        return b.area / w / h * self.side**2

    def at(self, i: int) -> Piece:
        """Where the object is said to be: its home cell.

        Not the object's own middle: which cell is next in reading order must follow from what is written.
        """
        return Piece(place_of(self.objects[i].home, self.side), i)

    def listed(self, members: Sequence[int], label: int, end: str) -> list[Piece]:
        """ " (98,70), (126,70)": where they are, one by one, then `end`; or that there are none."""
        if not members:
            return [Piece(f" nothing{end}", NOWHERE, label, 0)]
        pieces: list[Piece] = []
        for n, i in enumerate(members):
            pieces += [Piece("),", i, label, n)] if n else []
            pieces += [replace(self.at(i), nth=n)]
        return [*pieces, Piece(f"){end}", NOWHERE, label, len(members))]

    def label(self, unique: bool = False, several: bool = False) -> int | None:
        """A random class of the scene; `unique`: with one object, `several`: with more."""
        fit = [k for k, v in self.by_label.items() if (not unique or len(v) == 1) and (not several or len(v) > 1)]
        return self.rng.choice(fit) if fit else None

    def absent(self) -> int:
        """A class that is not there."""
        return self.rng.choice([i for i in range(len(CLASSES)) if i not in self.by_label])

    def pick(self, wording: Wording) -> str:
        return wording.pick(self.rng, self.held_out)

    def ask(self, phrase: str) -> tuple[Task, str]:
        """A phrase for what is wanted, as a request to segment or to detect."""
        if self.rng.random() < 0.75:
            return Task.SEGMENTATION, self.pick(SEGMENT).format(it=phrase) + self.pick(TAILS)
        return Task.DETECTION, self.pick(DETECT).format(it=phrase) + self.pick(TAILS)


def _noun(wording: str, label: int, **more: str) -> str:
    c = CLASSES[label]
    return (
        wording.format(n=c.name, N=c.plural, **more).replace("a a", "an a")
        if wording.startswith("a ") and c.name[0] == "a"
        else wording.format(n=c.name, N=c.plural, **more)
    )


def _look_for(v: View, groups: Sequence[tuple[int, Sequence[int]]], color: str = "") -> tuple[Piece, ...]:
    """ "I look for dogs: (98,70), (126,70). 2 dogs. And cats: nothing."; the number follows from the list."""
    pieces = []
    for i, (label, members) in enumerate(groups):
        noun = f"{color + ' ' if color else ''}{CLASSES[label].plural}"
        pieces += [Piece(f"{' And' if i else 'I look for'} {noun}:", None, label), *v.listed(members, label, ".")]
        if members:
            number, noun = number_of(label, len(members), color).split(" ", 1)
            pieces += [Piece(f" {number}", None, label, len(members) - 1), Piece(f" {noun}.")]
    return tuple(pieces)


def by_name(v: View) -> Request | None:
    label = v.label()
    assert label is not None
    task, query = v.ask(_noun(v.pick(NAMED), label))
    return Request(task, "name", query, tuple(v.by_label[label]), _look_for(v, [(label, v.by_label[label])]))


def counting(v: View) -> Request | None:
    label = v.label() if v.rng.random() < 0.9 else v.absent()
    assert label is not None
    members = v.by_label.get(label, [])
    return Request(
        Task.COUNTING,
        "count",
        v.pick(COUNT).format(N=CLASSES[label].plural),
        tuple(members),
        _look_for(v, [(label, members)]),
    )


def absent(v: View) -> Request | None:
    label = v.absent()
    task, query = v.ask(_noun(v.pick(NAMED), label))
    return Request(task, "absent", query, (), _look_for(v, [(label, ())]))


def by_color(v: View) -> Request | None:
    painted = [k for k, members in v.by_label.items() if all(v.objects[i].color for i in members)]
    if not painted:
        return None
    label = v.rng.choice(painted)
    there = sorted({v.objects[i].color or "" for i in v.by_label[label]})
    missing = v.rng.random() < 0.12
    color = v.rng.choice([c for c in COLORS if c not in there] if missing else there)
    members = tuple(i for i in v.by_label[label] if v.objects[i].color == color)
    task, query = v.ask(_noun(v.pick(COLORED), label, c=color))
    return Request(task, "absent" if missing else "colour", query, members, _look_for(v, [(label, members)], color))


def _outstanding(v: View, label: int, value: Callable[[int], float], margin: float) -> int | None:
    """The object of the class with the largest value, if it leads by the margin."""
    first, second = sorted(v.by_label[label], key=value, reverse=True)[:2]
    return first if value(first) - value(second) > margin else None


def by_size(v: View) -> Request | None:
    label = v.label(several=True)
    if label is None:
        return None
    word = v.rng.choice(list(SIZES))
    sign = 1 if word == "largest" else -1
    best = _outstanding(v, label, lambda i: sign * math.log(v.area(i)), math.log(1.3))
    return None if best is None else _best_of(v, "size", label, best, word, SIZES[word])


def by_place(v: View) -> Request | None:
    label = v.label(several=True)
    if label is None:
        return None
    word = v.rng.choice(list(PLACES))
    corners = {
        "left": (-1, 0),
        "right": (1, 0),
        "leftmost": (-1, 0),
        "rightmost": (1, 0),
        "top": (0, -1),
        "bottom": (0, 1),
        "topmost": (0, -1),
        "lowest": (0, 1),
    }
    ways = [corners[w] for w in word.split()]
    dx, dy = sum(w[0] for w in ways), sum(w[1] for w in ways)
    best = _outstanding(v, label, lambda i: dx * v.centre(i)[0] + dy * v.centre(i)[1], 20 * len(ways))
    return None if best is None else _best_of(v, "place", label, best, word, PLACES[word])


def _best_of(v: View, kind: str, label: int, best: int, word: str, wording: Wording) -> Request:
    task, query = v.ask(_noun(v.pick(wording), label))
    thinking = (Piece(f"Of {CLASSES[label].plural}, the {word} is at", None, label), v.at(best), Piece(")."))
    return Request(task, kind, query, (best,), thinking)


def _beside(v: View, i: int, anchor: int) -> dict[str, float]:
    """How far object i lies on each side of the anchor; only sides that it clearly is on."""
    (x, y), (ax, ay) = v.centre(i), v.centre(anchor)
    dx, dy = x - ax, y - ay
    ways = {"left of": (-dx, abs(dy)), "right of": (dx, abs(dy)), "above": (-dy, abs(dx)), "below": (dy, abs(dx))}
    return {side: math.hypot(dx, dy) for side, (ahead, off) in ways.items() if ahead > 15 and ahead > 1.2 * off}


def by_relation(v: View) -> Request | None:
    anchors = [members[0] for members in v.by_label.values() if len(members) == 1]
    if not anchors or len(v.by_label) < 2:
        return None
    anchor = v.rng.choice(anchors)
    label = v.rng.choice([k for k in v.by_label if k != v.objects[anchor].label])
    word = v.rng.choice(list(RELATIONS))
    if word == "next to":
        fit = sorted(v.by_label[label], key=lambda i: math.dist(v.centre(i), v.centre(anchor)))
        if len(fit) < 2 or math.dist(v.centre(fit[1]), v.centre(anchor)) < 1.3 * math.dist(
            v.centre(fit[0]), v.centre(anchor)
        ):
            return None
    else:
        fit = [i for i in v.by_label[label] if word in _beside(v, i, anchor)]
        if len(fit) != 1:
            return None
    m = v.objects[anchor].name
    task, query = v.ask(_noun(v.pick(RELATIONS[word]), label, m=m))
    thinking = (
        Piece(f"The {m} is at", None, v.objects[anchor].label),
        v.at(anchor),
        Piece(f"). The {CLASSES[label].name} {word} it is at", None, label),
        v.at(fit[0]),
        Piece(")."),
    )
    return Request(task, "relation", query, (fit[0],), thinking)


def by_between(v: View) -> Request | None:
    anchors = [members[0] for members in v.by_label.values() if len(members) == 1]
    if len(anchors) < 2 or len(v.by_label) < 3:
        return None
    a, b = v.rng.sample(anchors, 2)
    label = v.rng.choice([k for k in v.by_label if k not in (v.objects[a].label, v.objects[b].label)])
    (ax, ay), (bx, by) = v.centre(a), v.centre(b)
    length = math.dist((ax, ay), (bx, by))
    middle = (ax + bx) / 2, (ay + by) / 2
    near = sorted(v.by_label[label], key=lambda i: math.dist(v.centre(i), middle))
    if math.dist(v.centre(near[0]), middle) > 0.3 * length or (
        len(near) > 1 and math.dist(v.centre(near[1]), middle) < 0.5 * length
    ):
        return None
    m, k = v.objects[a].name, v.objects[b].name
    task, query = v.ask(_noun(v.pick(BETWEEN), label, m=m, k=k))
    thinking = (
        Piece(f"The {m} is at", None, v.objects[a].label),
        v.at(a),
        Piece(f"). The {k} is at", None, v.objects[b].label),
        v.at(b),
        Piece(f"). The {CLASSES[label].name} between them is at", None, label),
        v.at(near[0]),
        Piece(")."),
    )
    return Request(task, "relation", query, (near[0],), thinking)


def by_purpose(v: View) -> Request | None:
    good = [p for p in PURPOSES if any(CLASS_INDEX[n] in v.by_label for n in p[1])]
    missing = v.rng.random() < 0.1
    if missing:
        good = [p for p in PURPOSES if p not in good]
    if not good:
        return None
    sentence, names, ways = v.rng.choice(good)
    groups = [(CLASS_INDEX[n], v.by_label[CLASS_INDEX[n]]) for n in names if CLASS_INDEX[n] in v.by_label]
    way = ways[-1] if v.held_out else v.rng.choice(ways[:-1])
    task, query = (Task.SEGMENTATION, way) if v.rng.random() < 0.5 else v.ask(way)
    pieces = [Piece(f"Something that {sentence}:")]
    for i, (label, members) in enumerate(groups):
        noun = f"{' and' if i else ''} {CLASSES[label].plural}"
        pieces += [Piece(noun, members[0], label), *v.listed(members, label, "." if i + 1 == len(groups) else "")]
    pieces += [] if groups else [Piece(" nothing.", NOWHERE)]
    return Request(
        task, "absent" if missing else "purpose", query, tuple(i for _, m in groups for i in m), tuple(pieces)
    )


def by_several(v: View) -> Request | None:
    if len(v.by_label) < 2:
        return None
    first, second = v.rng.sample(list(v.by_label), 2)
    form = v.rng.choice(("the {} and the {}", "{} and {}", "all {} and {}", "the {} and {}"))
    if v.held_out:
        form = "all the {} and all the {}"
    task, query = v.ask(form.format(CLASSES[first].plural, CLASSES[second].plural))
    groups = [(first, v.by_label[first]), (second, v.by_label[second])]
    return Request(task, "several", query, tuple(i for _, m in groups for i in m), _look_for(v, groups))


def _question(v: View, kind: str, question: str, answer: Piece) -> Request:
    question = question if v.rng.random() < 0.3 else question[0].upper() + question[1:]
    return Request(Task.VQA, kind, question + ("?" if v.rng.random() < 0.8 else ""), (), (), answer)


def ask_name(v: View) -> Request | None:
    signs = v.by_label.get(SIGN, [])
    if len(signs) != 1:
        return None
    return _question(v, "vqa_sign", v.pick(ASK_NAME), Piece(v.objects[signs[0]].text or "", signs[0]))


def ask_color(v: View) -> Request | None:
    fit = [m for m in v.by_label.values() if v.objects[m[0]].color and len({v.objects[i].color for i in m}) == 1]
    if not fit:
        return None
    members = v.rng.choice(fit)
    seen = v.objects[members[0]]
    return _question(v, "vqa_colour", _noun(v.pick(ASK_COLOR), seen.label), Piece(seen.color or "", members[0]))


def ask_there(v: View) -> Request | None:
    label = v.label() if v.rng.random() < 0.5 else v.absent()
    assert label is not None
    members = tuple(v.by_label.get(label, ()))
    return _question(
        v,
        "vqa_there",
        _noun(v.pick(ASK_THERE), label).replace("a a", "an a"),
        Piece("yes" if members else "no", members[0] if members else NOWHERE, label),
    )


def ask_what(v: View) -> Request | None:
    if len(v.by_label) != 1:
        return None
    return _question(v, "vqa_what", v.pick(ASK_WHAT), Piece(v.objects[0].name, 0))


def ask_side(v: View) -> Request | None:
    anchors = [members[0] for members in v.by_label.values() if len(members) == 1]
    if not anchors:
        return None
    anchor = v.rng.choice(anchors)
    side = v.rng.choice(list(SIDES))
    fit = sorted((d[side], i) for i in range(len(v.objects)) if i != anchor and side in (d := _beside(v, i, anchor)))
    if not fit or (
        len(fit) > 1 and fit[1][0] < 1.3 * fit[0][0] and v.objects[fit[0][1]].label != v.objects[fit[1][1]].label
    ):
        return None
    best = fit[0][1]
    question = v.pick(ASK_SIDE).format(r=v.rng.choice(SIDES[side]), m=v.objects[anchor].name)
    answer = Piece(v.objects[best].name, best, v.objects[anchor].label, via=anchor)
    return _question(v, "vqa_side", question, answer)


Maker = Callable[[View], Request | None]
KINDS: tuple[tuple[Maker, float], ...] = (
    (by_name, 20),
    (counting, 14),
    (absent, 6),
    (by_color, 14),
    (by_size, 9),
    (by_place, 12),
    (by_relation, 25),
    (by_between, 15),
    (by_purpose, 12),
    (by_several, 12),
    (ask_name, 30),
    (ask_color, 8),
    (ask_there, 5),
    (ask_what, 8),
    (ask_side, 12),
)


def random_requests(scene: Scene, rng: Random, n: int, held_out: bool = False, side: int = 280) -> list[Request]:
    """Up to `n` different requests of random kinds."""
    view = View(scene, rng, held_out, side)
    makers, weights = zip(*KINDS, strict=True)
    found: dict[str, Request] = {}
    for _ in range(4 * n):
        request = rng.choices(makers, weights)[0](view)
        if request is not None:
            found.setdefault(request.query, request)
        if len(found) == n:
            break
    return list(found.values())
