"""From a request to its task: the router model's category, read strictly, and the rules that refine it.

Knows nothing of pictures: the request's text alone decides.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Unpack

from vision_reasoner.errors import QueryError
from vision_reasoner.models.engine import Engine, Prompt, check_text
from vision_reasoner.models.local import LoadOptions, TransformersEngine
from vision_reasoner.prompts import router_messages
from vision_reasoner.results import Task

MAX_NEW_TOKENS = 512
OBJECTS, COUNTING, EDITING, QUESTION = 1, 2, 3, 4  # the categories of prompts.ROUTER_PROMPT

CATEGORY_NAMES = {
    OBJECTS: r"segment\w*|detect\w*",
    COUNTING: r"count\w*",
    EDITING: r"edit\w*",
    QUESTION: r"caption\w*|v?qa|question\w*",
}
CATEGORY_TITLES = {OBJECTS: "a request for objects", COUNTING: "counting", EDITING: "editing", QUESTION: "a question"}
_NUMBER_FIRST = re.compile(r"[\s\W_]*(?:(?:category|type|task|option)[\s\W_]*)?([1-4])(?![\d.]*\d)")
_NAME = re.compile("|".join(rf"\b(?P<c{category}>{names})\b" for category, names in CATEGORY_NAMES.items()), re.I)
_NUMBER_LAST = re.compile(r"(?<![\d.])([1-4])[\s\W_]*$")

# A noun with a word or two is something to find, unless one of them says what to do to it.
MAX_BARE_WORDS = 3
_SAYS_WHAT_TO_DO = re.compile(
    r"""\b(?:add|adjust|alter|apply|balance|bend|better|bigger|blend|blur\w*|boost|bright\w*|cartoon\w*|censor|change|clean|
    clear|clone|close|colou?ri[sz]e|convert|copy|correct|cover|crop|cut|dark(?:en|er)|decrease|delete|denoise|
    desaturate|dim|double|draw|drop|duplicate|dye|edit\w*|eliminate|enhance|enlarge|erase|expand|extend|fade|fewer|fill|
    filter|fix|flip|generate|gr[ae]yscale|hdr|hide|higher|improve|in|increase|inpaint|insert|into|invert|larger|lengthen|
    less|lighten|lighter|longer|lower|make|melt|merge|mirror|modify|more|mosaic|move|multiply|no|open|outpaint|paint|paste|
    photoshop|pixelate|polaroid|put|raise|recolou?r|reduce|remove|render|replace|rescale|resize|restore|restyle|retouch|
    rotate|saturate|scale|sepia|sharpen|sharper|shift|shorten|shorter|shrink|sketch|smaller|smooth|smudge|soften|
    straighten|stretch|strip|stronger|stylize|swap|take|thicken|tilt|tint|transform|turn|tweak|undo|upscale|vignette|
    warmer|warp|wipe|with|without|zoom)\b""",
    re.I | re.X,
)

# Words that ask for boxes; where a mask is asked for too, the mask has everything that a box has.
_ASKS_FOR_BOXES = re.compile(
    r"""\bde?te?ct(?:s|ed|ing|ions?)?\b
    | \bbounding[\s-]*(?:box(?:es)?|rectangles?)\b
    | \bb-?box(?:es|s)?\b
    | \bbox(?:es)?\s+coordinates?\b
    | \bcoordinates?\s+of\b
    | \b(?:locate|localise|localize|mark|enclose|annotate|indicate|highlight|frame|surround)\b.*
      \b(?:with|by|in|using|as)\s+(?:\w+\s+){0,3}?(?:box(?:es)?|rectangles?)\b
    | \b(?:draw|put|place|add)\b.*\b(?:box(?:es)?|rectangles?)\s+(?:around|round|on|over|for)\b
    | \b(?:want|need|like|get)\b.*\b(?:box(?:es)?|rectangles?)\s+a?round\b
    | ^\W*(?:please\s+)?box\s+(?:all|every|each|both)\b
    | \b(?:give|return|output|report|provide|predict|show|list)\b(?:\s+(?:me|us|out))?
      (?:\s+(?:a|an|the|all|all\s+the|its|their|only|just)){0,2}\s+(?:box(?:es)?|rectangles?)\b""",
    re.I | re.X | re.S,
)
_ASKS_FOR_MASKS = re.compile(r"\bsegment\w*|\bmasks?\b|\bpixels?\b|\bsilhouettes?\b|\bcut\s+out\b", re.I)


@dataclass(frozen=True)
class Route:
    """What a request was taken for.

    Attributes:
        task: the task, or None where none of ours fits (editing).
        reply: the router's raw text.
        warning: what a user should know about the decision, one line, or None.
    """

    task: Task | None
    reply: str
    warning: str | None = None

    def require_task(self) -> Task:
        """The task; raises a QueryError that says why where there is none."""
        if self.task is None:
            raise QueryError(self.warning or "the request is of no task that can be done; ask in other words")
        return self.task


def read_category(reply: str) -> int | None:
    """The category (1 to 4) that a router's reply names after `####`, as a number or by name; None if it names none.

    The last `####` that is followed by a category counts. A number counts if it stands first there ("#### 2") or, for
    want of a name, last; so "#### segmentation of 3 dogs" is 1.
    """
    for answer in reversed(reply.split("####")[1:]):
        if match := _NUMBER_FIRST.match(answer):
            return int(match[1])
        if (match := _NAME.search(answer)) and match.lastgroup:
            return int(match.lastgroup[1:])
        if match := _NUMBER_LAST.search(answer):
            return int(match[1])
    return None


def names_something(query: str) -> bool:
    """Whether a query is a noun with a word or two at most, none of which says what to do to an image."""
    words = query.split()
    return 0 < len(words) <= MAX_BARE_WORDS and not _SAYS_WHAT_TO_DO.search(query)


def guess_category(reply: str) -> int | None:
    """The category that a reply without a marked answer names last, by its name or else by its number.

    The original reads any keyword anywhere in the reply; see `read_category` for replies as they should be.
    """
    names = [match for match in _NAME.finditer(reply) if match.lastgroup]
    if names:
        return int(str(names[-1].lastgroup)[1:])
    match = _NUMBER_LAST.search(reply)
    return int(match[1]) if match else None


def asks_for_boxes(query: str) -> bool:
    """Whether a request for objects is content with boxes ("detect", "bounding box", "locate … with a box")."""
    return bool(_ASKS_FOR_BOXES.search(query)) and not _ASKS_FOR_MASKS.search(query)


def task_of(category: int | None, query: str) -> Task | None:
    """The task of a request whose category is known; None for editing. No category at all is treated as a question."""
    if category == OBJECTS:
        return Task.DETECTION if asks_for_boxes(query) else Task.SEGMENTATION
    if category == COUNTING:
        return Task.COUNTING
    return None if category == EDITING else Task.VQA


def route_of(reply: str, query: str) -> Route:
    """Read a router's `reply` to `query`."""
    category = read_category(reply)
    warning = None
    said = reply.strip()[-80:]
    if category is None:
        category = guess_category(reply)
        taken = "nothing is named; taken as a question" if category is None else f"taken as {CATEGORY_TITLES[category]}"
        warning = f"the router marked no category for {query!r} (it said {said!r}); {taken}"
    if category == EDITING and names_something(query):
        category = OBJECTS
        warning = f"the router took {query!r} for editing; it names something and is taken as a request for objects"
    elif category == EDITING:
        warning = (
            f"{query!r} asks for editing, and no image-generation model is configured; ask for objects, a count or an "
            "answer, or say which with --task"
        )
    return Route(task_of(category, query), reply, warning)


class Router:
    """The router model, which classifies requests: a Qwen2 causal language model, or whatever an engine runs."""

    def __init__(self, engine: Engine, *, batch_size: int = 32) -> None:
        """Ask `engine`, in batches of `batch_size` where it makes batches."""
        self.engine = engine
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(cls, path: str | Path, **loading: Unpack[LoadOptions]) -> Self:
        """Load a router from a folder or Hub id, to be run by transformers in this process.

        Arguments not listed here are those of `TransformersEngine.from_pretrained`.

        Raises:
            CheckpointError: it is missing, incomplete or of another kind.
            UsageError: there is no such device, dtype, attention or compile.
        """
        return cls(TransformersEngine.from_pretrained(path, "router", **loading))

    def route(self, query: str) -> Route:
        """The task of one request."""
        return self.route_batch([query])[0]

    def route_batch(self, queries: Sequence[str]) -> list[Route]:
        """The task of each request, in order.

        Raises:
            QueryError: a request is empty, too long, or contains one of the model's control tokens.
        """
        prompts = []
        for query in queries:
            check_text(query, self.engine.control_token)
            system, user = router_messages(query)
            prompts.append(Prompt(user["content"], system=system["content"]))
        replies = self.engine.generate(prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=self.batch_size)
        return [route_of(reply.text, query) for reply, query in zip(replies, queries, strict=True)]
