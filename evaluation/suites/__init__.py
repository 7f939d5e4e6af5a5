"""The kinds of data sets that can be measured, one file each: columns, truth, score and figures in one place.

A module of this package with a `SUITE` is a suite; nothing else needs an edit. For questions with short answers, say:

    from evaluation.suites.vqa import questions

    SUITE = questions("mydocs", "ANLS", columns={"answers": "solutions"}, data="me/my-documents", split="validation")

The same in a file elsewhere is taken by `--suite path/to/mydocs.py`.
"""

import importlib
import importlib.util
import pkgutil
from pathlib import Path

from evaluation.runner.schema import Manifest
from evaluation.suite import Suite, plain_name, unscored
from vision_reasoner.errors import DataError, UsageError, one_line

SUITES: dict[str, Suite] = {
    suite.name: suite
    for module in pkgutil.iter_modules(__path__)
    for suite in [importlib.import_module(f"{__name__}.{module.name}").SUITE]
}
"""By name."""


_added: set[str] = set()  # names of suites from files


def choose_suite(name: str, data: str | None) -> Suite:
    """The suite called `name`, or in the file of that name; for "vqa" that of the data set, where it has a known name.

    Raises:
        UsageError: there is none, or the file has none.
    """
    if name.endswith(".py"):
        return add_suite(Path(name))
    last = plain_name(Path(data).name) if data else ""
    chosen = last if name == "vqa" and last in SUITES else name
    if chosen not in SUITES:
        raise UsageError(f"--suite {name}: there is no such suite; give one of {', '.join(SUITES)}, or a .py file")
    return SUITES[chosen]


def add_suite(file: Path) -> Suite:
    """The `SUITE` of a Python file, which is executed; from now on it is one of SUITES.

    Raises:
        UsageError: it cannot be executed, has no `SUITE`, or one with another's name.
    """
    spec = importlib.util.spec_from_file_location(f"{__name__}.{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file}: is no Python file; give the .py file of a suite")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{file}: cannot be executed ({one_line(error)}); put it right") from error
    suite = getattr(module, "SUITE", None)
    if not isinstance(suite, Suite):
        raise UsageError(f"{file}: has no SUITE that is an evaluation.suite.Suite; name it so")
    if suite.name in SUITES.keys() - _added:
        raise UsageError(f"{file}: its suite is called {suite.name} as one of ours; give it another name")
    _added.add(suite.name)
    SUITES[suite.name] = suite
    return suite


def suite_of(manifest: Manifest) -> Suite:
    """The suite of a run; `unscored` where its answers are for a test server.

    Raises:
        DataError: there is none of that name.
    """
    if manifest["suite"] not in SUITES:
        raise DataError(
            f"the run is of a suite {manifest['suite']!r:.60}, and there are {', '.join(SUITES)}; give the file of its "
            "suite (--suite FILE.py)"
        )
    suite = SUITES[manifest["suite"]]
    return unscored(suite) if "submission" in manifest else suite
