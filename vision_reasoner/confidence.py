"""How probably an object is right: a logistic model of what is known about it, fitted for each checkpoint.

`evaluation.calibrate` fits it on an evaluated set and writes `calibration.json` into the reasoner's folder. Where a
value is not known of an object (the score of a mask where none was made), the others decide.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from vision_reasoner.errors import CheckpointError, one_line
from vision_reasoner.files import atomic_write
from vision_reasoner.geometry import Size
from vision_reasoner.masks import box_around
from vision_reasoner.matching import pairwise_iou
from vision_reasoner.models.checkpoints import CALIBRATION
from vision_reasoner.results import Instance, Prediction, Status

RIDGE = 1.0  # of the squared weights, in observations: keeps them finite where the objects can be told apart


def evidence(instance: Instance, size: Size) -> dict[str, float]:
    """What is known about an object, by name.

    Args:
        instance: in pixels of the image.
        size: (width, height) of the image.

    Returns:
        `votes`: the log-odds of a look finding it, half a vote added to either side; `presence`: the log-odds that
        there is such a thing, see `verify`; `likelihood`: see `Instance`;
        `score`: the segmenter's; `mask`: the IoU of its box with that of its mask; `area`: the logarithm of its box's
        share of the image. Those that are not known are missing.
    """
    known = {"area": math.log(instance.box.area / (size[0] * size[1]))}
    if instance.votes is not None:
        found, could = instance.votes
        known["votes"] = math.log((found + 0.5) / (could - found + 0.5))
    if instance.presence is not None:
        sure = min(max(instance.presence, 0.01), 0.99)
        known["presence"] = math.log(sure / (1 - sure))
    if instance.likelihood is not None:
        known["likelihood"] = instance.likelihood
    if instance.score is not None:
        known["score"] = instance.score
    if (mask := instance.mask) is not None:
        around = box_around(mask)
        known["mask"] = 0.0 if around is None else float(pairwise_iou([instance.box], [around])[0, 0])
    return known


@dataclass(frozen=True)
class Calibration:
    """A logistic model: the log-odds are `bias` plus, for each value that is known, `weight x (value - mean)`.

    Attributes:
        bias: the log-odds where every value is its mean.
        means: by name of the evidence, the values' means where it was fitted.
        weights: by the same names.
        fitted_on: what it was fitted on, for people.
    """

    bias: float
    means: Mapping[str, float]
    weights: Mapping[str, float]
    fitted_on: str = ""

    def confidence(self, known: Mapping[str, float]) -> float:
        """The probability that an object is right of which this is known (`evidence`)."""
        terms = (self.weights[name] * (known[name] - self.means[name]) for name in self.weights if name in known)
        odds = self.bias + sum(terms)
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))

    @classmethod
    def fit(cls, known: Sequence[Mapping[str, float]], right: Sequence[bool], fitted_on: str = "") -> Self:
        """Fit by maximum likelihood with a small ridge, by Newton's method.

        Args:
            known: the `evidence` of each object.
            right: whether it is right.
            fitted_on: kept.

        Raises:
            ValueError: there are not at least ten right and ten wrong objects.
        """
        labels = np.asarray(right, dtype=np.float64)
        if min(labels.sum(), len(labels) - labels.sum()) < 10:
            raise ValueError(
                f"{int(labels.sum())} right and {int(len(labels) - labels.sum())} wrong objects are too few to fit on"
            )
        names = sorted({name for one in known for name in one})
        table = np.array([[one.get(name, np.nan) for name in names] for one in known])
        means = np.nanmean(table, axis=0)
        scales = np.maximum(np.nanstd(table, axis=0), 1e-9)
        inputs = np.nan_to_num((table - means) / scales)  # what is not known is at its mean
        inputs = np.column_stack([np.ones(len(inputs)), inputs])
        penalty = RIDGE * np.diag([0.0, *np.ones(len(names))])
        solution = np.zeros(inputs.shape[1])
        for _ in range(50):
            chances = 1 / (1 + np.exp(-np.clip(inputs @ solution, -30, 30)))
            gradient = inputs.T @ (labels - chances) - penalty @ solution
            curvature = (inputs * (chances * (1 - chances))[:, None]).T @ inputs + penalty
            step = np.linalg.solve(curvature + 1e-9 * np.eye(len(solution)), gradient)
            solution = solution + step
            if np.abs(step).max() < 1e-8:
                break
        weights = solution[1:] / scales
        return cls(
            float(solution[0]),
            dict(zip(names, means.tolist(), strict=True)),
            dict(zip(names, weights.tolist(), strict=True)),
            fitted_on,
        )

    def save(self, file: Path) -> None:
        """Write it as JSON, rounded to six digits.

        Raises:
            UsageError: the file cannot be written.
        """
        values = asdict(self)
        values["bias"] = round(self.bias, 6)
        for name in ("means", "weights"):
            values[name] = {key: round(value, 6) for key, value in values[name].items()}
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        atomic_write(file, lambda part: part.write_text(text, encoding="ascii"))


def keep_confident(prediction: Prediction, least: float) -> Prediction:
    """The result without the objects whose confidence is below `least`, and how many they were."""
    kept = [instance for instance in prediction.instances if (instance.confidence or 0.0) >= least]
    if not (dropped := len(prediction.instances) - len(kept)):
        return prediction
    note = f"{dropped} of {len(prediction.instances)} objects are left out: their confidence is below {least:g}"
    status = prediction.status if kept else Status.NONE
    return replace(prediction, instances=kept, status=status, warnings=[*prediction.warnings, note])


def find_calibration(folder: Path) -> Calibration | None:
    """The calibration in a reasoner's folder; None where there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    file = folder / CALIBRATION
    return read_calibration(file) if file.is_file() else None


def read_calibration(file: Path) -> Calibration:
    """A calibration that `Calibration.save` wrote.

    Raises:
        CheckpointError: the file is not there, or damaged.
    """
    try:
        if not file.is_file() or file.stat().st_size > 100_000:
            raise ValueError("no regular file of less than 100 kB")
        return _checked(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: is no calibration ({one_line(error)}); make one by `python -m evaluation.calibrate`"
        ) from error


def _checked(data: Any) -> Calibration:
    means, weights = dict(data["means"]), dict(data["weights"])
    numbers = [data["bias"], *means.values(), *weights.values()]
    if means.keys() != weights.keys() or not all(type(number) in (int, float) for number in numbers):
        raise ValueError("its numbers are not in order")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("its numbers are not finite")
    return Calibration(float(data["bias"]), means, weights, str(data.get("fitted_on", "")))
