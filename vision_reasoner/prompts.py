"""What is said to each model, and how its answer is to be read: the one home of prompt texts.

A model family is data, a `Dialect`: its prompt, the frame its coordinates are in and the grammar of its reply.
The released weights were trained on these very strings; a changed character changes their answers.
This module knows nothing of pictures, tokens or devices.
"""

from dataclasses import dataclass
from typing import Literal

ANSWER_EXAMPLE = (
    '[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}, {"bbox_2d": [225,296,706,786], "point_2d": [302,410]}]'
)

Frame = Literal["square", "processed", "normalized_1000"]
Grammar = Literal["answer", "fence"]
Compat = Literal["none", "upstream"]
"""Whether something is done as the original code did it where that differs from what is right."""


@dataclass(frozen=True)
class Dialect:
    """How one family of models is asked for objects and how it answers.

    Attributes:
        name: the value of `--model`.
        prompt: the user turn's text, with one `{query}` to fill in.
        frame: what the coordinates of the reply refer to: "square" is the image resized to the checkpoint's own
            side, "processed" the picture as the processor resized it, "normalized_1000" a grid of 1000 x 1000.
        grammar: "answer" is `<think>…</think><answer>[…]</answer>`, "fence" a Markdown JSON fence.
        normalize_query: whether the query is lower-cased and stripped before it is put into the prompt.
    """

    name: str
    prompt: str
    frame: Frame
    grammar: Grammar
    normalize_query: bool = False

    def query_for(self, query: str) -> str:
        """`query` as it stands in the prompt."""
        return normalize_query(query) if self.normalize_query else query

    def text_for(self, query: str) -> str:
        """The user turn's text for `query`."""
        return self.prompt.replace("{query}", self.query_for(query))


# The sentences follow each other without a space: so it was in training.
VISION_REASONER = Dialect(
    name="vision_reasoner",
    prompt=(
        'Please find "{query}" with bboxs and points.'
        "Compare the difference between object(s) and find the most closely matched object(s)."
        "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
        "Output the bbox(es) and point(s) inside the interested object(s) in JSON format."
        f"i.e., <think> thinking process here </think><answer>{ANSWER_EXAMPLE}</answer>"
    ),
    frame="square",
    grammar="answer",
    normalize_query=True,
)

QWEN2_5_VL = Dialect(
    name="qwen",
    prompt='Locate "{query}", report the bboxes coordinates in JSON format.',
    frame="processed",
    grammar="fence",
)

QWEN2_VL = Dialect(
    name="qwen2",
    prompt=(
        'Locate "{query}" in the picture. Report every object that matches as a JSON array in a ```json fence, '
        'one {"bbox": [x1,y1,x2,y2], "label": "name"} per object, with coordinates from 0 to 1000.'
    ),
    frame="normalized_1000",
    grammar="fence",
)

DIALECTS = {dialect.name: dialect for dialect in (VISION_REASONER, QWEN2_5_VL, QWEN2_VL)}

ROUTER_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
ROUTER_PROMPT = (
    "Given a user instruction, please classify which type of task it is and output the final answer after "
    '"####".. The types are: 1) Segmentation/detection, 2) Counting, 3) Editing, 4) Caption/QA. '
    "The user instruction is: "
)


def normalize_query(query: str) -> str:
    """Lower case, without `.`, `"`, `?` and `!` at both ends (spaces stay), as in the training data."""
    return query.lower().strip('."?!')


def router_messages(query: str) -> list[dict[str, str]]:
    """The router's conversation for one request."""
    return [{"role": "system", "content": ROUTER_SYSTEM}, {"role": "user", "content": ROUTER_PROMPT + query}]
