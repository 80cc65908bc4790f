"""`pacball rucio` where Rucio's client is not installed."""

import subprocess
import sys

import pytest

# What is None there cannot be imported, as if it were not installed.
WITHOUT = "import sys; sys.modules['rucio'] = None; sys.argv[1:] = {words!r}; from paccli.main import run; run()"


@pytest.mark.parametrize(
    "words",
    [
        ["rucio", "register", "P-1-x", "--rse", "ORIGIN", "--store", "/nonexistent"],
        ["rucio", "retire", "P-1-x", "--rse", "ORIGIN", "--store", "/nonexistent"],
        ["rucio", "status"],
    ],
)
def test_the_extra_that_is_missing_is_named(words):
    command = [sys.executable, "-W", "error", "-c", WITHOUT.format(words=words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 7
    assert done.stderr == ("pacball: pacball rucio: Rucio's client is not installed (pip install 'pacball[rucio]')\n")
