"""The kinds of data sets that can be measured, one file each: columns, truth, score and figures in one place.

A module of this package with a `SUITE` is a suite; nothing else needs an edit. For questions with short answers, say:

    from evaluation.suites.vqa import questions

    SUITE = questions("mydocs", "ANLS", columns={"answers": "solutions"}, data="me/my-documents", split="validation")
"""

import importlib
import pkgutil
from pathlib import Path

from evaluation.runner.schema import Manifest
from evaluation.suite import Suite, plain_name
from vision_reasoner.errors import DataError

SUITES: dict[str, Suite] = {
    suite.name: suite
    for module in pkgutil.iter_modules(__path__)
    for suite in [importlib.import_module(f"{__name__}.{module.name}").SUITE]
}
"""By name."""


def choose_suite(name: str, data: str | None) -> Suite:
    """The suite called `name`; for "vqa" that of the data set, where its name is one of the published ones."""
    last = plain_name(Path(data).name) if data else ""
    return SUITES[last if name == "vqa" and last in SUITES else name]


def suite_of(manifest: Manifest) -> Suite:
    """The suite of a run.

    Raises:
        DataError: there is none of that name.
    """
    if manifest["suite"] not in SUITES:
        raise DataError(
            f"the run is of a suite {manifest['suite']!r:.60} that does not exist; there are {', '.join(SUITES)}"
        )
    return SUITES[manifest["suite"]]
