"""What commands share: extras that are missing."""

import pytest

from vision_reasoner.cli import require
from vision_reasoner.errors import UsageError


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    require("train", "json", "argparse")
    with pytest.raises(UsageError, match=r"no_such_package is not installed; pip install -e '\.\[train\]'"):
        require("train", "json", "no_such_package")
