"""The reply that a row's solution is imitated as: the prompt's grammar, with a list of places as its thinking."""

from typing import Literal

from vision_reasoner.data.solutions import read_solution
from vision_reasoner.geometry import Size

Thinking = Literal["list", "none"]


def reply_of(problem: str, solution: str, *, model_size: Size, thinking: Thinking = "list") -> str:
    """The reply to imitate.

    Args:
        problem: the request.
        solution: JSON text, as in rows.
        model_size: (width, height) of the frame that its numbers are pixels of.
        thinking: "list" names the point of each object and their number before the answer, so that they are found one
            by one; "none" answers at once.

    Raises:
        DataError: the solution cannot be read.

    Example:
        >>> cup = '[{"bbox_2d": [1, 2, 9, 8], "point_2d": [5, 6]}]'
        >>> reply_of("the cup", cup, model_size=(840, 840))
        '<think>I look for the cup: (5,6). 1.</think><answer>[{"bbox_2d": [1,2,9,8], "point_2d": [5,6]}]</answer>'
        >>> reply_of("the cup", "[]", model_size=(840, 840), thinking="none")
        '<think></think><answer>[]</answer>'
    """
    objects = read_solution(solution, model_size=model_size)
    boxes, points = (
        [",".join(f"{number:g}" for number in numbers) for numbers in values.tolist()]
        for values in (objects.boxes, objects.points)
    )
    listed = ", ".join(f"({point})" for point in points) + f". {len(points)}" if points else "nothing"
    thought = f"I look for {problem}: {listed}." if thinking == "list" else ""
    answer = ", ".join(
        f'{{"bbox_2d": [{box}], "point_2d": [{point}]}}' for box, point in zip(boxes, points, strict=True)
    )
    return f"<think>{thought}</think><answer>[{answer}]</answer>"
