"""How often the 95 % intervals hold: the share of simulated data sets whose interval has the truth in it.

    python -m evaluation.metrics.coverage               # a table; some minutes
    python -m evaluation.metrics.coverage --sets 20000

"differs" rows are differences of two runs on the same samples, of which the second answers a part anew.

share       right or wrong; three samples of an image go together (intraclass correlation 0.3)
gIoU        a share of misses (0), otherwise a beta distribution: mean and a + b are given
cIoU        the same, with areas from a lognormal distribution (sigma), misses with half an area more in the union
boxes       true boxes 1 + Poisson(2), each found by a share of the image's own (beta), false alarms gamma-Poisson
counts      right by a share that falls from 0.95 to 0.2 over ten true counts: mean accuracy per true count
AP          `simulated_ap`, against the mean over such sets; in parentheses against a set of 20,000 images
MAE         errors of counts with a share of gross ones: what its interval would be, which is not printed

"printed" is the share of sets that have an interval; coverage is of these.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from evaluation.metrics import boxes, coco, counting, segmentation
from evaluation.metrics.coco import CocoScores, Matches
from evaluation.metrics.intervals import Estimate, Values, change, difference, interval, ratio
from vision_reasoner.cli import make_parser, run_command
from vision_reasoner.errors import ExitCode, UsageError

SHAPES = ((40, 1), (100, 1), (200, 1), (100, 3))  # images, samples of each
ICC = 0.3  # of samples of one image, where there are several
CHANGED = 0.1  # of samples that a second run answers otherwise
LARGE = 500_000  # images of the set that the truth is taken from where no formula gives it

Draw = Callable[[np.random.Generator, int], Values]
"""(N, K) columns of a set of so many images."""
Result = tuple[float, float, float]
"""Coverage, mean width, and the share of sets with an interval."""


# --- sets -------------------------------------------------------------------------------------------------------------
def shares(rng: np.random.Generator, p: float, images: int, each: int) -> Values:
    """(images, each) zeros and ones whose expected share is `p`."""
    if each == 1:
        return (rng.random((images, 1)) < p).astype(np.float64)
    strength = 1 / ICC - 1
    own = rng.beta(p * strength, (1 - p) * strength, (images, 1))
    return (rng.random((images, each)) < own).astype(np.float64)


def overlaps(rng: np.random.Generator, images: int, misses: float, mean: float, strength: float) -> Values:
    """(images,) IoU."""
    found = rng.beta(mean * strength, (1 - mean) * strength, images)
    return np.where(rng.random(images) < misses, 0.0, found)


def areas(rng: np.random.Generator, images: int, misses: float, mean: float, strength: float, sigma: float) -> Values:
    """(images, 2) intersections and unions."""
    area = np.minimum(rng.lognormal(math.log(0.05), sigma, images), 0.9)
    iou = overlaps(rng, images, misses, mean, strength)
    union = area * np.where(iou == 0, 1.5, 1)
    return np.column_stack([iou * union, union])


def found_boxes(rng: np.random.Generator, images: int, recall: float, alarms: float) -> Values:
    """(images, 3) boxes: matched, predicted, true."""
    true = 1 + rng.poisson(2, images)
    matched = rng.binomial(true, rng.beta(4 * recall, 4 * (1 - recall), images))
    return np.column_stack([matched, matched + rng.poisson(alarms * true * rng.gamma(2, 0.5, images)), true])


def counted(rng: np.random.Generator, images: int, kinds: int) -> Values:
    """(images, 2 x kinds) columns of `counting.mean_accuracy`."""
    truth = rng.integers(kinds, size=images)
    return counting.per_count(rng.random(images) < np.linspace(0.95, 0.2, kinds)[truth], truth.tolist())


def errors(rng: np.random.Generator, images: int, gross: float, size: float) -> Values:
    """(images,) distances of counts."""
    usual = np.where(rng.random(images) < 0.6, 0, 1 + rng.poisson(0.6, images))
    return np.where(rng.random(images) < gross, 1 + rng.poisson(size, images), usual).astype(np.float64)


def simulated_ap(
    sample: np.random.Generator,
    model: np.random.Generator,
    images: int,
    categories: int,
    per_image: float,
    telling: float,
) -> CocoScores:
    """Matched detections.

    Categories are as frequent as 1 / rank, a few of them in each image; true boxes 1 + Poisson(1), found by a share
    that differs between images and categories; false alarms Poisson(0.5) where a category is; scores are normal, and
    higher by `telling` for boxes that are right. `sample` draws the images and `model` what is found there.
    """
    frequency = 1 / np.arange(1, categories + 1)
    pairs = [
        (image, category)
        for image, n in enumerate(sample.poisson(per_image - 1, images) + 1)
        for category in np.unique(sample.choice(categories, n, p=frequency / frequency.sum()))
    ]
    at, kind = np.array(pairs).T
    ease = sample.normal(0, 0.7, images)
    skill = np.linspace(-0.8, 0.8, categories)[np.arange(categories) * 7 % categories]
    true = 1 + sample.poisson(1, len(at))
    latent = model.normal(0.35, 1, true.sum()) + np.repeat(ease[at] + skill[kind], true)
    reached = np.clip(np.floor(5 * latent + 2), 1, 10) * (latent > 0)
    alarms = model.poisson(0.5 * np.exp(-0.4 * ease[at]))
    place, of = (np.concatenate([np.repeat(one, true)[reached > 0], np.repeat(one, alarms)]) for one in (at, kind))
    level = np.concatenate([reached[reached > 0], np.zeros(alarms.sum())])
    order = np.argsort(-(telling * (level > 0) * (1 + 0.2 * level) + model.normal(0, 1, len(of))))
    matches = []
    for category in np.unique(kind):
        own = order[of[order] == category]
        hits = level[own] > np.arange(coco.T)[:, None]
        truths = np.bincount(at, true * (kind == category), minlength=images)
        matches.append(Matches(place[own], hits, np.ones_like(hits), truths.astype(np.float64)))
    scores = CocoScores({}, tuple(range(images)), tuple(range(categories)), tuple(matches))
    ap = coco.average_precision(scores, np.ones((1, images)))[0]
    scores.figures.update({name: float(ap[levels].mean()) for name, levels in coco.THRESHOLDS.items()})
    return scores


# --- coverage ---------------------------------------------------------------------------------------------------------
def coverage(simulate: Callable[[], tuple[float, Estimate]], sets: int) -> Result:
    """Of the intervals that there are, the share with the truth in them."""
    found = [simulate() for _ in range(sets)]
    there = [(truth, estimate) for truth, estimate in found if not math.isnan(estimate.low)]
    if not there:
        return math.nan, math.nan, 0.0
    inside = [estimate.low - 1e-12 <= truth <= estimate.high + 1e-12 for truth, estimate in there]
    width = np.mean([estimate.high - estimate.low for _, estimate in there])
    return float(np.mean(inside)), float(width), len(there) / len(found)


def one_run(rng: np.random.Generator, p: float, images: int, each: int) -> tuple[float, Estimate]:
    """The truth and the interval of a share."""
    drawn = shares(rng, p, images, each)
    return p, interval(drawn.ravel(), np.repeat(np.arange(images), each).tolist())


def two_runs(rng: np.random.Generator, p: float, images: int, each: int) -> tuple[float, Estimate]:
    """The truth and the interval of a difference of shares."""
    first = shares(rng, p, images, each)
    changed = rng.random(first.shape) < CHANGED
    second = np.where(changed, shares(rng, p, images, each), first)
    clusters = np.repeat(np.arange(images), each).tolist()
    return 0.0, difference(first.ravel(), second.ravel(), clusters)


def set_of(rng: np.random.Generator, draw: Draw, images: int, truth: float, **options: Any) -> tuple[float, Estimate]:
    """The truth and the interval of a figure of sums."""
    return truth, interval(draw(rng, images), range(images), **options)


def changed_set(
    rng: np.random.Generator, draw: Draw, images: int, changed: float, least: float = 0
) -> tuple[float, Estimate]:
    """The truth, 0, and the interval of a difference of ratios."""
    first = draw(rng, images)
    second = np.where((rng.random(images) < changed)[:, None], draw(rng, images), first)
    return 0.0, difference(first, second, range(images), least=least)


def rows(rng: np.random.Generator, sets: int) -> Iterator[tuple[str, str, int, Result]]:
    """The figure, the parameters, the number of images, and the result; but those of AP."""
    for name, simulate in (("share", one_run), ("share differs", two_runs)):
        for p in (0.5, 0.9, 0.95, 0.99):
            for images, each in SHAPES:
                result = coverage(lambda: simulate(rng, p, images, each), sets)  # noqa: B023
                yield name, f"{p}, {each} each", images, result
    kinds: list[tuple[str, str, Draw, dict[str, float], tuple[int, ...]]] = []
    for parameters in ((0.01, 0.85, 10), (0.05, 0.85, 10), (0.05, 0.9, 50), (0.3, 0.85, 10), (0.9, 0.85, 10)):
        kinds.append(("gIoU", str(parameters), partial(_with_ones, partial(_overlaps, parameters)), {}, (40, 100, 200)))
    for areas_ in ((0.1, 0.85, 10, 1.0), (0.1, 0.85, 10, 1.5), (0.3, 0.8, 10, 1.5), (0.05, 0.9, 20, 1.0)):
        kinds.append(
            ("cIoU", str(areas_), partial(_areas, areas_), {"least": segmentation.LEAST_IMAGES}, (200, 500, 1000, 2000))
        )
    for found in ((0.5, 0.5), (0.9, 0.1), (0.97, 0.03), (0.6, 0.02), (0.05, 1.0)):
        for name in ("precision", "recall", "F1"):
            kinds.append((name, str(found), partial(_boxes, found, name), {}, (40, 100, 300)))
    for name, text, draw, options, sizes in kinds:
        large = draw(np.random.default_rng(1), LARGE).sum(axis=0, keepdims=True)
        for images in sizes:
            truth = float(ratio(large)[0])
            yield name, text, images, coverage(partial(set_of, rng, draw, images, truth, **options), sets)
            for changed in (0.1, 0.5) if name in ("gIoU", "cIoU") else (0.5,):
                result = coverage(partial(changed_set, rng, draw, images, changed, **options), sets)
                yield f"{name} differs", f"{text} {changed}", images, result
    accuracy = float(np.linspace(0.95, 0.2, 10).mean())
    for images in (40, 100, 500):
        draw = partial(_counted, 10)
        result = coverage(partial(set_of, rng, draw, images, accuracy, combine=counting.mean_accuracy), sets)
        yield "counts", "10", images, result
    for gross, size in ((0.0, 0.0), (0.01, 20.0), (0.05, 20.0), (0.02, 60.0)):
        truth = (1 - gross) * 0.4 * 1.6 + gross * (1 + size)
        for images in (100, 500):
            yield "MAE", f"{gross}, {size}", images, coverage(partial(_mae, rng, gross, size, images, truth), sets)


def _overlaps(parameters: tuple[float, float, float], rng: np.random.Generator, images: int) -> Values:
    return overlaps(rng, images, *parameters)


def _with_ones(draw: Draw, rng: np.random.Generator, images: int) -> Values:
    return np.column_stack([draw(rng, images), np.ones(images)])


def _areas(parameters: tuple[float, float, float, float], rng: np.random.Generator, images: int) -> Values:
    return areas(rng, images, *parameters)


def _boxes(parameters: tuple[float, float], name: str, rng: np.random.Generator, images: int) -> Values:
    matched, predicted, true = found_boxes(rng, images, *parameters).T
    if name == "F1":
        return boxes.f1(matched, predicted, true)
    return np.column_stack([matched, predicted if name == "precision" else true])


def _counted(kinds: int, rng: np.random.Generator, images: int) -> Values:
    return counted(rng, images, kinds)


# A difference of fractions is at most 1: errors are counted in thousands of objects.
def _mae(rng: np.random.Generator, gross: float, size: float, images: int, truth: float) -> tuple[float, Estimate]:
    drawn = errors(rng, images, gross, size) / 1000
    estimate = change(float(drawn.mean()), drawn)
    return truth / 1000, estimate


def ap_rows(seed: int, sets: int) -> Iterator[tuple[str, str, int, Result, float]]:
    """The same for AP and its differences; at last the coverage of what a set without end would have."""
    for images, categories, per_image in ((81, 137, 3), (100, 10, 2), (150, 40, 1), (300, 80, 3), (500, 80, 3)):
        for telling in (0.0, 2.0):
            shape = images, categories, per_image, telling
            text = f"{categories} categories, {telling}"
            first, second = (
                [
                    simulated_ap(np.random.default_rng([seed, i]), np.random.default_rng([seed, i, k]), *shape)
                    for i in range(sets)
                ]
                for k in (1, 2)
            )
            endless = np.random.default_rng(seed).spawn(2)
            large = simulated_ap(endless[0], endless[1], 20_000, categories, per_image, telling).figures["AP"]
            estimates = [coco.intervals(scores)["AP"] for scores in first]
            mean = float(np.mean([estimate.value for estimate in estimates]))
            held = coverage(iter([(mean, estimate) for estimate in estimates]).__next__, sets)
            yield "AP", text, images, held, coverage(iter([(large, one) for one in estimates]).__next__, sets)[0]
            pairs = [coco.differences(one, two)["AP"] for one, two in zip(first, second, strict=True)]
            held = coverage(iter([(0.0, estimate) for estimate in pairs]).__next__, sets)
            yield "AP differs", text, images, held, held[0]


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = make_parser("python -m evaluation.metrics.coverage", __doc__)
    parser.add_argument("--sets", type=int, default=2000, metavar="N", help="simulated data sets a row (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (%(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Simulate and print."""
    if arguments.sets < 1:
        raise UsageError("--sets must be at least 1")
    print(f"{'':<18}{'':<24}{'images':>8}{'coverage':>10}{'width':>8}{'printed':>9}")
    for name, text, images, (held, width, there) in rows(np.random.default_rng(arguments.seed), arguments.sets):
        line = f"{name:<18}{text:<24}{images:>8}{100 * held:>9.1f}%{100 * width:>8.1f}{100 * there:>8.0f}%"
        print(line, flush=True)
    for name, text, images, (held, width, there), endless in ap_rows(arguments.seed, max(1, arguments.sets // 4)):
        line = f"{name:<18}{text:<24}{images:>8}{100 * held:>9.1f}%{100 * width:>8.1f}{100 * there:>8.0f}%"
        print(f"{line}  ({100 * endless:.1f}%)", flush=True)
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
