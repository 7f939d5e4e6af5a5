"""The runner with a model that needs no weights: its reply depends on the request alone, so that any order will do.

python -m tests.support.toys <data> <suite> <folder> <seconds>    # a slow run, to be killed
"""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.runner.evaluate import evaluate
from evaluation.runner.samples import Samples
from evaluation.runner.schema import Metrics
from evaluation.suites import SUITES
from tests.support.runs import SIZE, manifest_of
from tests.test_model import Fills
from vision_reasoner import VisionReasoner
from vision_reasoner.data.sources import open_source
from vision_reasoner.models.reasoner import Reply
from vision_reasoner.prompts import VISION_REASONER

FRAME = (840, 840)
Says = Callable[[int], str | Reply | Exception]


class Knows:
    """Says about "sample i of them" what `says(i)` gives; an exception is raised, for the whole batch."""

    dialect = VISION_REASONER

    def __init__(self, says: Says, seconds: float = 0.0) -> None:
        self.says, self.seconds = says, seconds
        self.batches: list[list[int]] = []
        self.queries: list[str] = []

    def ask(self, images: Any, queries: Any, **options: Any) -> list[Reply]:  # noqa: ARG002
        time.sleep(self.seconds)
        numbers = [int(re.findall(r"\d+", query)[0]) for query in queries]
        self.batches.append(numbers)
        self.queries += queries
        replies = [self.says(i) for i in numbers]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return [reply if isinstance(reply, Reply) else Reply(str(reply), FRAME) for reply in replies]


def objects(*boxes: tuple[int, int, int, int], point: bool = True) -> str:
    """A reply with these boxes, in pixels of an image of SIZE."""
    items = []
    for x1, y1, x2, y2 in boxes:
        x1, x2, y1, y2 = (
            round(840 * v / side) for v, side in ((x1, SIZE[0]), (x2, SIZE[0]), (y1, SIZE[1]), (y2, SIZE[1]))
        )
        inner = f', "point_2d": [{(x1 + x2) // 2}, {(y1 + y2) // 2}]' if point else ""
        items.append(f'{{"bbox_2d": [{x1}, {y1}, {x2}, {y2}]{inner}}}')
    return f"<think>I look for a < b.</think><answer>[{', '.join(items)}]</answer>"


def various(i: int) -> str | Reply:
    """All kinds of replies."""
    if i % 7 == 5:
        return "I do not know."
    if i % 7 == 6:
        return Reply(objects((4, 4, 40, 40), (50, 8, 90, 50))[:-30], FRAME, finished=False)
    return objects(*[(4 + 9 * k, 4 + i % 30, 30 + 9 * k, 50) for k in range(i % 4)], point=i % 2 == 0)


def toy_model(says: Says = various, seconds: float = 0.0) -> Any:
    """A VisionReasoner of it, with a segmenter that fills boxes."""
    return VisionReasoner(Knows(says, seconds), None, Fills())


def toy_run(
    data: Path,
    suite: str,
    folder: Path,
    model: VisionReasoner | None = None,
    *,
    limit: int | None = None,
    **options: Any,
) -> Metrics:
    """Begin or continue a run; what its metrics.json holds."""
    samples = Samples(SUITES[suite], open_source(data))
    manifest = manifest_of(samples, **{"n": limit or samples.source.n, **options.pop("manifest", {})})
    toy = model or toy_model()
    return evaluate(
        samples, folder=folder, manifest=manifest, **{"load": lambda: toy, "batch_size": 3, "quiet": True, **options}
    )


def main() -> None:
    """A slow run."""
    data, suite, folder, seconds = sys.argv[1:]
    toy_run(Path(data), suite, Path(folder), toy_model(seconds=float(seconds)))


if __name__ == "__main__":
    main()
