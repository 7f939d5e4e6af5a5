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
            side, "processed" the image as the processor resized it, "normalized_1000" a grid of 1000 x 1000.
        grammar: "answer" is `<think>…</think><answer>[…]</answer>`, "fence" a Markdown JSON fence.
        normalize_query: whether the query is lower-cased and stripped before it is put into the prompt.
        counting_prompt: the text where objects are to be counted; None is `prompt`.
        system: the system turn; None leaves it to the checkpoint's chat template.
        max_new_tokens: the limit of a reply, where it is less than the caller's.
        truncate: whether coordinates are truncated to whole pixels rather than rounded.
    """

    name: str
    prompt: str
    frame: Frame
    grammar: Grammar
    normalize_query: bool = False
    counting_prompt: str | None = None
    system: str | None = None
    max_new_tokens: int | None = None
    truncate: bool = False

    def query_for(self, query: str) -> str:
        """`query` as it stands in the prompt."""
        return normalize_query(query) if self.normalize_query else query

    def text_for(self, query: str, *, counting: bool = False) -> str:
        """The user turn's text for `query`."""
        prompt = self.counting_prompt if counting and self.counting_prompt else self.prompt
        return prompt.replace("{query}", self.query_for(query))


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

# The paper's baselines, as the original asks them: white space, the missing full stop of the system turn and all.
BASELINE_SYSTEM = "You are a helpful assistant"
BASELINE_TOKENS = 1024
_LOCATE = 'Locate "{query}", report the bboxes coordinates in JSON format.'
_COUNTING = f"\n        {_LOCATE}\n        "

QWEN2_5_VL = Dialect(
    name="qwen",
    prompt=f"\n            {_LOCATE}\n            ",
    frame="processed",
    grammar="fence",
    normalize_query=True,
    counting_prompt=_COUNTING,
    system=BASELINE_SYSTEM,
    max_new_tokens=BASELINE_TOKENS,
    truncate=True,
)

QWEN2_VL = Dialect(
    name="qwen2",
    prompt=(
        '\n            Please identify "{query}" in the image. '
        "\n            Return a JSON array where each object is represented as:"
        '\n            {"bbox": [x1, y1, x2, y2], "label": label}'
        "\n            "
        "\n            Your response should be formatted as:"
        "\n            ```json"
        "\n            ["
        '\n                {"bbox": [x1, y1, x2, y2], "label": label},'
        "\n                ..."
        "\n            ]"
        "\n            ```"
        "\n            "
    ),
    frame="normalized_1000",
    grammar="fence",
    normalize_query=True,
    counting_prompt=_COUNTING,
    system=BASELINE_SYSTEM,
    max_new_tokens=BASELINE_TOKENS,
    truncate=True,
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
