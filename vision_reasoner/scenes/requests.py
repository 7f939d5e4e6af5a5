"""Requests about a scene in many wordings, each with its answer and the thinking that leads to it.

Each kind of request is one small function, a `RequestTemplate`, from a scene to a `Request`, or None where the scene
does not allow it. Wordings come in two sets: one to train on, one held out. This module does not know tokens or models.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from vision_reasoner.results import Task
from vision_reasoner.scenes.classes import CLASS_INDEX, CLASSES, COLORS, PURPOSES, SIGN, ObjectClass
from vision_reasoner.scenes.scene import GRID, Scene, SceneObject

NO_OBJECT = -2  # a span's target where no further object exists


@dataclass(frozen=True)
class Span:
    """A part of a reply, with what the model has to attend to in order to write it.

    Attributes:
        text: what is written.
        target: the object (index into the scene's objects) to attend to while writing it; NO_OBJECT where the text says
            that there is no further one; None where the image does not matter.
        class_id: the class (index into CLASSES) that it is about; None where that follows from `target`, or there is
            none.
        ordinal: index, among those being listed, of the object that is due, whether it exists or not; None outside of
            lists.
        anchor: the object to find first in order to find the target; None where the words are enough.
    """

    text: str
    target: int | None = None
    class_id: int | None = None
    ordinal: int | None = None
    anchor: int | None = None


def place_of(cell: tuple[int, int], side: int) -> str:
    """ " (98,70": x and y of the cell's center in the frame; the closing bracket belongs to what follows."""
    row, column = cell
    x, y = ((2 * k + 1) * side // (2 * GRID) for k in (column, row))
    return f" ({x},{y}"


@dataclass(frozen=True)
class Request:
    """One request and its right answer.

    Attributes:
        task: what the router should make of it.
        kind: the family of requests that it belongs to; metrics are reported by kind.
        query: the request itself.
        targets: indices into the scene's objects, in the order in which the answer lists them.
        thinking: the reasoning that the reply starts with.
        answer: the answer to a VQA request; None otherwise.
    """

    task: Task
    kind: str
    query: str
    targets: tuple[int, ...] = ()
    thinking: tuple[Span, ...] = ()
    answer: Span | None = None


@dataclass
class Wording:
    """Wordings of one kind: those to train on, and those held out."""

    train: Sequence[str]
    held_out: Sequence[str]

    def pick(self, rng: Random, held_out: bool) -> str:
        return rng.choice(self.held_out if held_out else self.train)


# Slots: {it} a noun phrase, {n} and {N} a class's singular and plural, {c} a color, {m} and {k} the names of anchors,
# {r} a side. The wordings, their order and their repetitions are what the bundled checkpoint was trained on.
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


# --- shares of random choices
SEGMENTATION_SHARE = 0.75  # of requests for objects; the rest ask for boxes
COUNT_PRESENT_SHARE, ABSENT_COLOR_SHARE, ABSENT_PURPOSE_SHARE = 0.9, 0.12, 0.1  # "nothing" must stay a possible answer
BARE_PURPOSE_SHARE = 0.5  # of requests by purpose name it and ask for nothing else
YES_SHARE = 0.5  # of questions whether something is there: neither answer is the better guess
LOWER_CASE_SHARE, QUESTION_MARK_SHARE = 0.3, 0.8  # of questions
TRIES_PER_REQUEST = 4  # templates tried for each request that is wanted

# --- margins: what is asked for must be clear to a person; lengths are pixels of the frame
SIZE_RATIO = 1.3  # between the areas of the largest object and the second largest
PLACE_MARGIN = 20  # by which the leftmost object is left of the second one, for each direction
SIDE_MARGIN, SIDE_SLOPE = 15, 1.2  # "left of" means this far to the left, and this much farther than up or down
DISTANCE_RATIO = 1.3  # between the distances of the nearest object and the second nearest
BETWEEN_RADIUS, BETWEEN_CLEARANCE = 0.3, 0.5  # of the anchors' distance: the object's and any other's from their middle


def article(noun: str) -> str:
    """ "a dog", "an apple"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def number_of(c: ObjectClass, n: int, color: str = "") -> str:
    """ "1 red cup", "3 red cups", "no red cup"."""
    noun = c.name if n < 2 else c.plural
    return f"{n or 'no'} {color + ' ' if color else ''}{noun}"


@dataclass
class RequestContext:
    """What request templates need: a scene, its objects by class, and a source of random choices.

    Attributes:
        scene: what is asked about.
        rng: decides every choice.
        held_out: take held-out wordings.
        side: of the square frame in which thinking names places, and in which sizes and distances are measured.
        classes: what the objects' labels are indices into.
        looked_for: labels of the classes that may be asked for where the scene has none; None: all of them.
        by_label: indices of the scene's objects, by class.
    """

    scene: Scene
    rng: Random
    held_out: bool = False
    side: int = 280
    classes: Sequence[ObjectClass] = CLASSES
    looked_for: Sequence[int] | None = None
    by_label: dict[int, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_label = {}
        for i, o in enumerate(self.scene.objects):
            self.by_label.setdefault(o.label, []).append(i)

    @property
    def objects(self) -> list[SceneObject]:
        return self.scene.objects

    def class_of(self, i: int) -> ObjectClass:
        """The class of an object."""
        return self.classes[self.objects[i].label]

    def center(self, i: int) -> tuple[float, float]:
        """(x, y) of the box's center, in the frame."""
        b = self.objects[i].box
        w, h = self.scene.size
        return (b.x1 + b.x2) / 2 / w * self.side, (b.y1 + b.y2) / 2 / h * self.side

    def area(self, i: int) -> float:
        """Of the box, in square pixels of the frame."""
        b = self.objects[i].box
        w, h = self.scene.size
        return b.area / w / h * self.side**2

    def at(self, i: int) -> Span:
        """The place of an object: the center of its grid cell.

        It is not the object's own center, so that the next cell in reading order follows from the text alone.
        """
        return Span(place_of(self.objects[i].cell, self.side), i)

    def listed(self, members: Sequence[int], label: int, end: str) -> list[Span]:
        """ " (98,70), (126,70)": the places of the objects and then `end`; " nothing" where there are none."""
        if not members:
            return [Span(f" nothing{end}", NO_OBJECT, label, 0)]
        spans: list[Span] = []
        for n, i in enumerate(members):
            spans += [Span("),", i, label, n)] if n else []
            spans += [replace(self.at(i), ordinal=n)]
        return [*spans, Span(f"){end}", NO_OBJECT, label, len(members))]

    def label(self, unique: bool = False, several: bool = False) -> int | None:
        """A random class of the scene; `unique`: among those with one object, `several`: with more than one."""
        fit = [k for k, v in self.by_label.items() if (not unique or len(v) == 1) and (not several or len(v) > 1)]
        return self.rng.choice(fit) if fit else None

    def absent(self) -> int | None:
        """A random class that is not in the scene."""
        looked_for = range(len(self.classes)) if self.looked_for is None else self.looked_for
        absent = [i for i in looked_for if i not in self.by_label]
        return self.rng.choice(absent) if absent else None

    def pick(self, wording: Wording) -> str:
        return wording.pick(self.rng, self.held_out)

    def ask(self, phrase: str) -> tuple[Task, str]:
        """A request to segment or to detect what a noun phrase names."""
        if self.rng.random() < SEGMENTATION_SHARE:
            return Task.SEGMENTATION, self.pick(SEGMENT).format(it=phrase) + self.pick(TAILS)
        return Task.DETECTION, self.pick(DETECT).format(it=phrase) + self.pick(TAILS)


def _noun(wording: str, c: ObjectClass, /, **more: str) -> str:
    return (
        wording.format(n=c.name, N=c.plural, **more).replace("a a", "an a")
        if wording.startswith("a ") and c.name[0] == "a"
        else wording.format(n=c.name, N=c.plural, **more)
    )


def _look_for(ctx: RequestContext, groups: Sequence[tuple[int, Sequence[int]]], color: str = "") -> tuple[Span, ...]:
    """ "I look for dogs: (98,70), (126,70). 2 dogs. And cats: nothing."; the count follows from the list."""
    spans = []
    for i, (label, members) in enumerate(groups):
        noun = f"{color + ' ' if color else ''}{ctx.classes[label].plural}"
        spans += [Span(f"{' And' if i else 'I look for'} {noun}:", None, label), *ctx.listed(members, label, ".")]
        if members:
            number, noun = number_of(ctx.classes[label], len(members), color).split(" ", 1)
            spans += [Span(f" {number}", None, label, len(members) - 1), Span(f" {noun}.")]
    return tuple(spans)


def by_name(ctx: RequestContext) -> Request | None:
    label = ctx.label()
    if label is None:
        return None
    task, query = ctx.ask(_noun(ctx.pick(NAMED), ctx.classes[label]))
    return Request(task, "name", query, tuple(ctx.by_label[label]), _look_for(ctx, [(label, ctx.by_label[label])]))


def counting(ctx: RequestContext) -> Request | None:
    label = ctx.label() if ctx.rng.random() < COUNT_PRESENT_SHARE else ctx.absent()
    if label is None:
        return None
    members = ctx.by_label.get(label, [])
    return Request(
        Task.COUNTING,
        "count",
        ctx.pick(COUNT).format(N=ctx.classes[label].plural),
        tuple(members),
        _look_for(ctx, [(label, members)]),
    )


def absent(ctx: RequestContext) -> Request | None:
    label = ctx.absent()
    if label is None:
        return None
    task, query = ctx.ask(_noun(ctx.pick(NAMED), ctx.classes[label]))
    return Request(task, "absent", query, (), _look_for(ctx, [(label, ())]))


def by_color(ctx: RequestContext) -> Request | None:
    painted = [k for k, members in ctx.by_label.items() if all(ctx.objects[i].color for i in members)]
    if not painted:
        return None
    label = ctx.rng.choice(painted)
    there = sorted({ctx.objects[i].color or "" for i in ctx.by_label[label]})
    missing = ctx.rng.random() < ABSENT_COLOR_SHARE
    color = ctx.rng.choice([c for c in COLORS if c not in there] if missing else there)
    members = tuple(i for i in ctx.by_label[label] if ctx.objects[i].color == color)
    task, query = ctx.ask(_noun(ctx.pick(COLORED), ctx.classes[label], c=color))
    return Request(task, "absent" if missing else "colour", query, members, _look_for(ctx, [(label, members)], color))


def _clear_maximum(ctx: RequestContext, label: int, value: Callable[[int], float], margin: float) -> int | None:
    """The object of the class with the largest value, if it exceeds the second largest by the margin."""
    first, second = sorted(ctx.by_label[label], key=value, reverse=True)[:2]
    return first if value(first) - value(second) > margin else None


def by_size(ctx: RequestContext) -> Request | None:
    label = ctx.label(several=True)
    if label is None:
        return None
    word = ctx.rng.choice(list(SIZES))
    sign = 1 if word == "largest" else -1
    best = _clear_maximum(ctx, label, lambda i: sign * math.log(ctx.area(i)), math.log(SIZE_RATIO))
    return None if best is None else _best_of(ctx, "size", label, best, word, SIZES[word])


def by_place(ctx: RequestContext) -> Request | None:
    label = ctx.label(several=True)
    if label is None:
        return None
    word = ctx.rng.choice(list(PLACES))
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
    best = _clear_maximum(ctx, label, lambda i: dx * ctx.center(i)[0] + dy * ctx.center(i)[1], PLACE_MARGIN * len(ways))
    return None if best is None else _best_of(ctx, "place", label, best, word, PLACES[word])


def _best_of(ctx: RequestContext, kind: str, label: int, best: int, word: str, wording: Wording) -> Request:
    task, query = ctx.ask(_noun(ctx.pick(wording), ctx.classes[label]))
    thinking = (Span(f"Of {ctx.classes[label].plural}, the {word} is at", None, label), ctx.at(best), Span(")."))
    return Request(task, kind, query, (best,), thinking)


def _beside(ctx: RequestContext, i: int, anchor: int) -> dict[str, float]:
    """The distance of object i from the anchor, for each side of the anchor that it clearly is on."""
    (x, y), (ax, ay) = ctx.center(i), ctx.center(anchor)
    dx, dy = x - ax, y - ay
    ways = {"left of": (-dx, abs(dy)), "right of": (dx, abs(dy)), "above": (-dy, abs(dx)), "below": (dy, abs(dx))}
    return {
        side: math.hypot(dx, dy)
        for side, (ahead, off) in ways.items()
        if ahead > SIDE_MARGIN and ahead > SIDE_SLOPE * off
    }


def by_relation(ctx: RequestContext) -> Request | None:
    anchors = [members[0] for members in ctx.by_label.values() if len(members) == 1]
    if not anchors or len(ctx.by_label) < 2:
        return None
    anchor = ctx.rng.choice(anchors)
    label = ctx.rng.choice([k for k in ctx.by_label if k != ctx.objects[anchor].label])
    word = ctx.rng.choice(list(RELATIONS))
    if word == "next to":
        fit = sorted(ctx.by_label[label], key=lambda i: math.dist(ctx.center(i), ctx.center(anchor)))
        if len(fit) < 2 or math.dist(ctx.center(fit[1]), ctx.center(anchor)) < DISTANCE_RATIO * math.dist(
            ctx.center(fit[0]), ctx.center(anchor)
        ):
            return None
    else:
        fit = [i for i in ctx.by_label[label] if word in _beside(ctx, i, anchor)]
        if len(fit) != 1:
            return None
    m = ctx.class_of(anchor).name
    task, query = ctx.ask(_noun(ctx.pick(RELATIONS[word]), ctx.classes[label], m=m))
    thinking = (
        Span(f"The {m} is at", None, ctx.objects[anchor].label),
        ctx.at(anchor),
        Span(f"). The {ctx.classes[label].name} {word} it is at", None, label),
        ctx.at(fit[0]),
        Span(")."),
    )
    return Request(task, "relation", query, (fit[0],), thinking)


def by_between(ctx: RequestContext) -> Request | None:
    anchors = [members[0] for members in ctx.by_label.values() if len(members) == 1]
    if len(anchors) < 2 or len(ctx.by_label) < 3:
        return None
    a, b = ctx.rng.sample(anchors, 2)
    label = ctx.rng.choice([k for k in ctx.by_label if k not in (ctx.objects[a].label, ctx.objects[b].label)])
    (ax, ay), (bx, by) = ctx.center(a), ctx.center(b)
    length = math.dist((ax, ay), (bx, by))
    middle = (ax + bx) / 2, (ay + by) / 2
    near = sorted(ctx.by_label[label], key=lambda i: math.dist(ctx.center(i), middle))
    if math.dist(ctx.center(near[0]), middle) > BETWEEN_RADIUS * length or (
        len(near) > 1 and math.dist(ctx.center(near[1]), middle) < BETWEEN_CLEARANCE * length
    ):
        return None
    m, k = ctx.class_of(a).name, ctx.class_of(b).name
    task, query = ctx.ask(_noun(ctx.pick(BETWEEN), ctx.classes[label], m=m, k=k))
    thinking = (
        Span(f"The {m} is at", None, ctx.objects[a].label),
        ctx.at(a),
        Span(f"). The {k} is at", None, ctx.objects[b].label),
        ctx.at(b),
        Span(f"). The {ctx.classes[label].name} between them is at", None, label),
        ctx.at(near[0]),
        Span(")."),
    )
    return Request(task, "relation", query, (near[0],), thinking)


def by_purpose(ctx: RequestContext) -> Request | None:
    good = [p for p in PURPOSES if any(CLASS_INDEX[n] in ctx.by_label for n in p[1])]
    missing = ctx.rng.random() < ABSENT_PURPOSE_SHARE
    if missing:
        good = [p for p in PURPOSES if p not in good]
    if not good:
        return None
    sentence, names, ways = ctx.rng.choice(good)
    groups = [(CLASS_INDEX[n], ctx.by_label[CLASS_INDEX[n]]) for n in names if CLASS_INDEX[n] in ctx.by_label]
    way = ways[-1] if ctx.held_out else ctx.rng.choice(ways[:-1])
    task, query = (Task.SEGMENTATION, way) if ctx.rng.random() < BARE_PURPOSE_SHARE else ctx.ask(way)
    spans = [Span(f"Something that {sentence}:")]
    for i, (label, members) in enumerate(groups):
        noun = f"{' and' if i else ''} {ctx.classes[label].plural}"
        spans += [Span(noun, members[0], label), *ctx.listed(members, label, "." if i + 1 == len(groups) else "")]
    spans += [] if groups else [Span(" nothing.", NO_OBJECT)]
    return Request(
        task, "absent" if missing else "purpose", query, tuple(i for _, m in groups for i in m), tuple(spans)
    )


def by_several(ctx: RequestContext) -> Request | None:
    if len(ctx.by_label) < 2:
        return None
    first, second = ctx.rng.sample(list(ctx.by_label), 2)
    form = ctx.rng.choice(("the {} and the {}", "{} and {}", "all {} and {}", "the {} and {}"))
    if ctx.held_out:
        form = "all the {} and all the {}"
    task, query = ctx.ask(form.format(ctx.classes[first].plural, ctx.classes[second].plural))
    groups = [(first, ctx.by_label[first]), (second, ctx.by_label[second])]
    return Request(task, "several", query, tuple(i for _, m in groups for i in m), _look_for(ctx, groups))


def _question(ctx: RequestContext, kind: str, question: str, answer: Span) -> Request:
    question = question if ctx.rng.random() < LOWER_CASE_SHARE else question[0].upper() + question[1:]
    return Request(Task.VQA, kind, question + ("?" if ctx.rng.random() < QUESTION_MARK_SHARE else ""), (), (), answer)


def ask_name(ctx: RequestContext) -> Request | None:
    signs = ctx.by_label.get(SIGN, [])
    if len(signs) != 1:
        return None
    return _question(ctx, "vqa_sign", ctx.pick(ASK_NAME), Span(ctx.objects[signs[0]].text or "", signs[0]))


def ask_color(ctx: RequestContext) -> Request | None:
    fit = [m for m in ctx.by_label.values() if ctx.objects[m[0]].color and len({ctx.objects[i].color for i in m}) == 1]
    if not fit:
        return None
    members = ctx.rng.choice(fit)
    seen = ctx.objects[members[0]]
    return _question(
        ctx, "vqa_colour", _noun(ctx.pick(ASK_COLOR), ctx.classes[seen.label]), Span(seen.color or "", members[0])
    )


def ask_there(ctx: RequestContext) -> Request | None:
    label = ctx.label() if ctx.rng.random() < YES_SHARE else ctx.absent()
    if label is None:
        return None
    members = tuple(ctx.by_label.get(label, ()))
    return _question(
        ctx,
        "vqa_there",
        _noun(ctx.pick(ASK_THERE), ctx.classes[label]).replace("a a", "an a"),
        Span("yes" if members else "no", members[0] if members else NO_OBJECT, label),
    )


def ask_what(ctx: RequestContext) -> Request | None:
    if len(ctx.by_label) != 1:
        return None
    return _question(ctx, "vqa_what", ctx.pick(ASK_WHAT), Span(ctx.class_of(0).name, 0))


def ask_side(ctx: RequestContext) -> Request | None:
    anchors = [members[0] for members in ctx.by_label.values() if len(members) == 1]
    if not anchors:
        return None
    anchor = ctx.rng.choice(anchors)
    side = ctx.rng.choice(list(SIDES))
    fit = sorted(
        (d[side], i) for i in range(len(ctx.objects)) if i != anchor and side in (d := _beside(ctx, i, anchor))
    )
    if not fit or (
        len(fit) > 1
        and fit[1][0] < DISTANCE_RATIO * fit[0][0]
        and ctx.objects[fit[0][1]].label != ctx.objects[fit[1][1]].label
    ):
        return None
    best = fit[0][1]
    question = ctx.pick(ASK_SIDE).format(r=ctx.rng.choice(SIDES[side]), m=ctx.class_of(anchor).name)
    answer = Span(ctx.class_of(best).name, best, ctx.objects[anchor].label, anchor=anchor)
    return _question(ctx, "vqa_side", question, answer)


RequestTemplate = Callable[[RequestContext], Request | None]
# Each template with its weight. Kinds that few scenes allow, or that the model learns slowly, weigh more.
TEMPLATES: tuple[tuple[RequestTemplate, float], ...] = (
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
    """Up to `n` different requests of random kinds.

    Args:
        scene: what is asked about.
        rng: decides everything.
        n: fewer are returned where the scene does not offer as many.
        held_out: take held-out wordings.
        side: the frame in which thinking names places, see `RequestContext`.
    """
    return requests_about(RequestContext(scene, rng, held_out, side), TEMPLATES, n)


def requests_about(view: RequestContext, templates: Sequence[tuple[RequestTemplate, float]], n: int) -> list[Request]:
    """Up to `n` different requests by some of the templates, each with its weight."""
    makers, weights = zip(*templates, strict=True)
    found: dict[str, Request] = {}
    for _ in range(TRIES_PER_REQUEST * n):
        request = view.rng.choices(makers, weights)[0](view)
        if request is not None:
            found.setdefault(request.query, request)
        if len(found) == n:
            break
    return list(found.values())
