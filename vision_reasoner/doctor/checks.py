"""What is asked of a model to find out whether all of it works, each by the calls that a user makes."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vision_reasoner.doctor.findings import Verdict, diagnose
from vision_reasoner.doctor.frame import Sighting
from vision_reasoner.doctor.scenes import DrawnScene, Kind, draw_disks, draw_scenes
from vision_reasoner.errors import CheckpointError, UsageError, VisionReasonerError, one_line
from vision_reasoner.model import VisionReasoner
from vision_reasoner.models.reasoner import Reply
from vision_reasoner.parsing import ParsedReply, parse_reply, written_boxes
from vision_reasoner.prompts import DIALECTS
from vision_reasoner.results import Status, Task

logger = logging.getLogger(__name__)

State = Literal["ok", "failed", "undecided", "note"]
FRAME_STATES: dict[str, State] = {"confirmed": "ok", "wrong": "failed", "undecided": "undecided"}

KINDS: tuple[Kind, ...] = ("airplanes", "red circles")  # the second where the first decides nothing
MIN_IN_FORM = 0.8  # of the replies
MIN_MASK_IOU = 0.9  # of a plain disk
ROUTES = {  # None is editing, which is refused
    "segment the airplanes": Task.SEGMENTATION,
    "detect the dogs": Task.DETECTION,
    "How many airplanes are there in this image?": Task.COUNTING,
    "What is the name of the company?": Task.VQA,
    "Remove the background from this photo": None,
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of it.
        state: "ok"; "failed"; "undecided" where it cannot be said; "note" where it is not needed for the rest.
        summary: one line.
        advice: what to do about it, one line; empty where there is nothing to do.
    """

    name: str
    state: State
    summary: str
    advice: str = ""


@dataclass(frozen=True, eq=False)
class Asked:
    """A drawn scene and the reply to it, or why there is none."""

    scene: DrawnScene
    reply: Reply | VisionReasonerError


@dataclass(frozen=True, eq=False)
class Examination:
    """Everything that was found out.

    Attributes:
        checks: in the order in which they are told.
        asked: every scene that the verdict on the frame goes by.
        verdict: on the frame.
        seconds: that all of the reasoner's replies took.
        n_tokens, n_replies: of them.
    """

    checks: list[Check]
    asked: list[Asked]
    verdict: Verdict
    seconds: float
    n_tokens: int
    n_replies: int


def examine(model: VisionReasoner) -> Examination:
    """Ask about drawn scenes and look at all parts.

    Raises:
        VisionReasonerError: the reasoner does not load, or answers none of the requests.
    """
    served = "reasoner" in model.settings.served
    dialect = model.reasoner.dialect  # loads it before the clock starts
    everything: list[Asked] = []
    asked: list[Asked] = []
    verdict: Verdict | None = None
    start = time.perf_counter()
    for kind in KINDS:
        scenes = draw_scenes(kind)
        logger.info("Asking for the %s in %d drawn pictures ...", kind, len(scenes))
        answered = ask(model, scenes)
        everything += answered
        found = diagnose(sightings_of(answered, model), dialect, served=served)
        if verdict is None or found.state != "undecided":
            verdict, asked = found, answered
        if found.state != "undecided":
            break
    seconds = time.perf_counter() - start
    assert verdict is not None
    replies = [one.reply for one in everything if isinstance(one.reply, Reply)]
    in_form = check_replies(everything, model)
    advice = verdict.advice
    if verdict.state == "undecided" and in_form.state == "ok":
        advice += f"; the first is {_shortened(replies[0].text)}"
    return Examination(
        checks=[
            Check("Frame", FRAME_STATES[verdict.state], verdict.summary, advice),
            in_form,
            check_likelihoods(replies),
            check_router(model),
            check_segmenter(model),
        ],
        asked=asked,
        verdict=verdict,
        seconds=seconds,
        n_tokens=sum(reply.n_tokens for reply in replies),
        n_replies=len(replies),
    )


def ask(model: VisionReasoner, scenes: Sequence[DrawnScene]) -> list[Asked]:
    """The reply to each scene; where they cannot be asked together, each alone.

    Raises:
        VisionReasonerError: there is no reply to any, or to none can there be one.
    """

    def together(some: Sequence[DrawnScene]) -> list[Asked]:
        replies = model.ask([scene.image for scene in some], [scene.query for scene in some], Task.DETECTION)
        return [Asked(scene, reply) for scene, reply in zip(some, replies, strict=True)]

    try:
        return together(scenes)
    except (UsageError, CheckpointError):
        raise
    except VisionReasonerError:
        asked = []
        for scene in scenes:
            try:
                asked += together([scene])
            except VisionReasonerError as error:
                asked.append(Asked(scene, error))
        if not any(isinstance(one.reply, Reply) for one in asked):
            raise
        return asked


def sightings_of(asked: Sequence[Asked], model: VisionReasoner) -> list[Sighting]:
    """What was written about each scene that was answered."""
    grammar = model.reasoner.dialect.grammar
    return [
        Sighting(
            one.scene.name,
            one.scene.image.size,
            one.reply.model_size,
            np.array(one.scene.boxes, dtype=np.float64),
            np.array(written_boxes(one.reply.text, grammar=grammar), dtype=np.float64).reshape(-1, 4),
        )
        for one in asked
        if isinstance(one.reply, Reply)
    ]


def check_replies(asked: Sequence[Asked], model: VisionReasoner) -> Check:
    """Whether replies come, are in the grammar of --model, and are whole."""
    dialect = model.reasoner.dialect
    errors = [(one.scene.name, one.reply) for one in asked if isinstance(one.reply, VisionReasonerError)]
    if errors:
        name, error = errors[0]
        told = f"{len(errors)} of {len(asked)} requests failed; the first, on {name} pictures: {one_line(error)}"
        return Check("Replies", "failed", told)
    replies = [one.reply for one in asked if isinstance(one.reply, Reply)]
    parsed = [_parsed(reply, dialect.grammar) for reply in replies]
    bad = [i for i, one in enumerate(parsed) if not _in_form(one)]
    summary = f"{len(replies) - len(bad)} of {len(replies)} in the form of --model {dialect.name}"
    if len(replies) - len(bad) >= MIN_IN_FORM * len(replies):
        return Check("Replies", "ok", summary)
    how = Counter(parsed[i].status for i in bad).most_common(1)[0][0]
    summary += f"; {how.replace('_', ' ')} as a rule, as in {_shortened(replies[bad[0]].text)}"
    if how is Status.TRUNCATED or not replies[bad[0]].finished:
        return Check("Replies", "failed", summary, "raise --max_new_tokens, or give the server a longer context")
    others = [
        name
        for name, other in DIALECTS.items()
        if other.grammar != dialect.grammar and sum(_in_form(_parsed(reply, other.grammar)) for reply in replies) > 1
    ]
    advice = f"this is the form of --model {' or '.join(others)}" if others else "check --model and the chat template"
    return Check("Replies", "failed", summary, advice)


def _parsed(reply: Reply, grammar: Any) -> ParsedReply:
    side = 1 << 20  # whatever the frame, nothing leaves it
    return parse_reply(reply.text, model_size=(side, side), image_size=(side << 10, side << 10), grammar=grammar)


def _in_form(parsed: ParsedReply) -> bool:
    return parsed.status in (Status.OK, Status.NONE)


def _shortened(text: str, length: int = 120) -> str:
    """A text in quotes; of a long one both ends."""
    half = length // 2
    return repr(text if len(text) <= length else f"{text[:half]} ... {text[-half:]}")


def check_likelihoods(replies: Sequence[Reply]) -> Check:
    """Whether the engine gives log-probabilities, by which evaluation ranks objects for COCO AP."""
    n_given = sum(bool(reply.logprobs) for reply in replies if reply.text)
    if n_given:
        return Check("Likelihoods", "ok", "log-probabilities are there")
    return Check("Likelihoods", "note", "no log-probabilities: objects have no likelihood, which only COCO AP needs")


def check_router(model: VisionReasoner) -> Check:
    """Whether requests of each kind are told apart, in the form that the router is asked for."""
    try:
        routes = model.route(list(ROUTES))
    except VisionReasonerError as error:
        return Check("Router", "failed", one_line(error), "with --task none is needed")
    wrong = [query for query, route in zip(ROUTES, routes, strict=True) if route.task is not ROUTES[query]]
    unmarked = [route.reply for route in routes if route.task is not None and route.warning]
    summary = f"{len(ROUTES) - len(wrong)} of {len(ROUTES)} requests are taken for what they are"
    if unmarked:
        return Check(
            "Router",
            "failed",
            f'{summary}; {len(unmarked)} replies do not name a category after "####", as in {_shortened(unmarked[0])}',
            "is this a task router? give --task_router_model_path, or say --task with each request",
        )
    if wrong:
        return Check("Router", "failed", f"{summary}; not so {wrong[0]!r}", "say --task where it goes wrong")
    return Check("Router", "ok", summary)


def check_segmenter(model: VisionReasoner) -> Check:
    """Whether the masks of plain disks are right."""
    image, disks = draw_disks()
    try:
        found = model.segment(image, [box for box, _, _ in disks], [point for _, point, _ in disks])
    except VisionReasonerError as error:
        return Check("Masks", "failed", one_line(error), "only segmentation needs it")
    ious = [
        float((instance.mask & mask).sum() / (instance.mask | mask).sum()) if instance.mask is not None else 0.0
        for instance, (_, _, mask) in zip(found, disks, strict=True)
    ]
    summary = f"IoU {' and '.join(f'{iou:.2f}' for iou in ious)} on two drawn disks"
    if min(ious) < MIN_MASK_IOU:
        return Check("Masks", "failed", summary, "is this a SAM2 checkpoint whose weights belong to its config?")
    return Check("Masks", "ok", summary)
