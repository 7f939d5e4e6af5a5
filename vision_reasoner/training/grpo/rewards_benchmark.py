"""Time of a reward: all pairs of objects at once, against a plain double loop, and against trying all matchings.

    python -m vision_reasoner.training.grpo.rewards_benchmark
    python -m vision_reasoner.training.grpo.rewards_benchmark --objects 5 50 --rounds 10

A time is the processor's for one whole reply, from its text and its row's solution to its reward; all three read both
in the same way. They take turns on the same replies and must agree on every reward.
"""

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.data.solutions import Candidate, Objects, read_solution
from vision_reasoner.errors import UsageError
from vision_reasoner.geometry import Size
from vision_reasoner.matching import MIN_IOU
from vision_reasoner.training.grpo.rewards import (
    BOX_DISTANCE,
    MAX_OBJECTS,
    POINT_DISTANCE,
    THRESHOLD_SIDE,
    Reward,
    compute_reward,
    read_answer,
    score_answer_format,
    score_non_repeat,
    score_think_format,
)

OBJECTS = (1, 10, 30, MAX_OBJECTS)
FEW_OBJECTS = (1, 2, 4, 6, 8)  # all matchings of 8 are 40,320; of 30, more than can ever be tried
REPLIES = 4  # of each length
FRAME = (THRESHOLD_SIDE, THRESHOLD_SIDE)
Matching = Callable[[Sequence[Sequence[int]]], int]


def best_matching(scores: Sequence[Sequence[int]]) -> int:
    """The largest sum of one-to-one matched scores of a table with N rows and M columns, by the Hungarian method."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return sum(scores[row][column] for row, column in zip(rows, columns, strict=True))


def every_matching(scores: Sequence[Sequence[int]]) -> int:
    """The same by trying all of them."""
    table = scores if len(scores) <= len(scores[0]) else list(zip(*scores, strict=True))
    orders = itertools.permutations(range(len(table[0])), len(table))
    return max(sum(row[column] for row, column in zip(table, order, strict=True)) for order in orders)


def plain_score(
    box: Sequence[float], point: Sequence[float], true_box: Sequence[float], true_point: Sequence[float], size: Size
) -> int:
    """One entry of `rewards.pair_scores`, written down as the definition reads."""
    (x1, y1, x2, y2), (x, y) = box, point
    (u1, v1, u2, v2), (u, v) = true_box, true_point
    across, down = THRESHOLD_SIDE / size[0], THRESHOLD_SIDE / size[1]
    width, height = min(x2, u2) - max(x1, u1) + 1, min(y2, v2) - max(y1, v1) + 1
    intersection = width * height if width > 0 and height > 0 else 0
    area = (x2 - x1 + 1) * (y2 - y1 + 1) if x2 > x1 - 1 and y2 > y1 - 1 else 0
    overlaps = intersection / (area + (u2 - u1 + 1) * (v2 - v1 + 1) - intersection) > MIN_IOU
    distance = ((abs(x1 - u1) + abs(x2 - u2)) * across + (abs(y1 - v1) + abs(y2 - v2)) * down) / 4
    away = (((x - u) * across) ** 2 + ((y - v) * down) ** 2) ** 0.5
    inside = x1 <= x <= x2 and y1 <= y <= y2
    return overlaps + (distance < BOX_DISTANCE) + (away < POINT_DISTANCE and inside)


def plain_accuracy(
    candidates: Sequence[Candidate] | None, truth: Objects, *, model_size: Size, matching: Matching = best_matching
) -> float:
    """`rewards.score_accuracy`, pair by pair."""
    if not candidates or len(truth.boxes) == 0:
        return 0.0
    predicted = [(box, point) for box, point in candidates if box is not None and point is not None]
    if len(predicted) < len(candidates):
        return 0.0
    pairs = list(zip(truth.boxes.tolist(), truth.points.tolist(), strict=True))[:MAX_OBJECTS]
    scores = [
        [plain_score(box, point, true_box, true_point, model_size) for true_box, true_point in pairs]
        for box, point in predicted[:MAX_OBJECTS]
    ]
    return matching(scores) / max(len(scores), len(pairs))


def plain_reward(reply: str, solution: str, *, model_size: Size = FRAME, matching: Matching = best_matching) -> Reward:
    """`rewards.compute_reward`, pair by pair, for solutions that are not empty."""
    truth, candidates = read_solution(solution, model_size=model_size), read_answer(reply)
    part = plain_accuracy(candidates, truth, model_size=model_size, matching=matching)
    return Reward(score_think_format(reply), score_answer_format(candidates), part, score_non_repeat(reply))


def example(rng: random.Random, n: int) -> tuple[str, str]:
    """A reply that finds `n` objects more or less well, in another order, and the solution with those objects."""
    truth, found = [], []
    for _ in range(n):
        x, y, width, height = rng.randrange(700), rng.randrange(700), rng.randrange(20, 130), rng.randrange(20, 130)
        box, point = [x, y, x + width, y + height], [x + width // 2, y + height // 2]
        off = rng.choice([0, 5, 25])
        truth.append({"bbox_2d": box, "point_2d": point})
        found.append({key: [v + rng.randint(-off, off) for v in values] for key, values in truth[-1].items()})
    rng.shuffle(found)
    thinking = "I compare all of them. Each one matches what is asked for. None is left out."
    return f"<think>{thinking}</think><answer>{json.dumps(found)}</answer>", json.dumps(truth)


def measure(n: int, plain: Callable[[str, str], Reward], rounds: int) -> tuple[float, float, float]:
    """Processor seconds for a reply with `n` objects by `compute_reward` and by `plain`; the median of their ratios."""
    rng = random.Random(n)
    examples = [example(rng, n) for _ in range(REPLIES)]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        rewards = {}
        for ours, function in ((True, compute_reward), (False, plain)):
            start = time.process_time()
            rewards[ours] = [function(reply, solution) for reply, solution in examples]
            seconds[ours].append((time.process_time() - start) / len(examples))
        if rewards[True] != rewards[False]:
            raise AssertionError(f"the rewards differ: {rewards[True]} and {rewards[False]}")
    ratios = [other / own for own, other in zip(seconds[True], seconds[False], strict=True)]
    return statistics.median(seconds[True]), statistics.median(seconds[False]), statistics.median(ratios)


def build_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = make_parser("python -m vision_reasoner.training.grpo.rewards_benchmark", __doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=OBJECTS, help="per reply (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is timed (default: %(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.rounds < 1 or min(arguments.objects) < 1:
        raise UsageError("--rounds and --objects must be at least 1")

    def every(reply: str, solution: str) -> Reward:
        return plain_reward(reply, solution, matching=every_matching)

    for title, plain, sizes in (
        ("double loop", plain_reward, arguments.objects),
        ("all matchings", every, FEW_OBJECTS),
    ):
        print(f"{'objects':>7}{'ours':>12}{title:>16}{'ratio':>10}")
        for n in sizes:
            own, other, ratio = measure(n, plain, arguments.rounds if n in arguments.objects else 3)
            print(f"{n:7}{own * 1e3:9.2f} ms{other * 1e3:13.2f} ms{ratio:9.1f}x")
    print("all rewards were equal")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
