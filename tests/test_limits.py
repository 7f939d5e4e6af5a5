"""Whatever a reply or a row of truth says, reading it ends, within limits that the system sets."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits are Linux's")
def test_replies_and_truth_are_read_within_limits_and_with_no_error_but_ours():
    done = subprocess.run([sys.executable, "-m", "tests.support.limited"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
