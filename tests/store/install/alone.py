"""Functions called in a process of their own, which has a single thread, as processes that fork must."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_PROGRAM = """
import importlib, os, pickle, sys
name, function = sys.argv[1:]
arguments = pickle.load(sys.stdin.buffer)
done = getattr(importlib.import_module(name), function)(*arguments)
sys.stdout.buffer.write(pickle.dumps(done))
"""


def start(function: Callable[..., object], *arguments: object) -> subprocess.Popen[bytes]:
    """Begin to call a function of a module of tests; its process leads a group of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONWARNINGS": "error",
        "OPENBLAS_NUM_THREADS": "1",
    }
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, function.__module__, function.__name__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    child.stdin.write(pickle.dumps(arguments))
    child.stdin.close()
    child.stdin = None
    return child


def alone(function: Callable[..., object], *arguments: object) -> Any:
    """What the function returns, called in a process of its own."""
    child = start(function, *arguments)
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors.decode()
    return pickle.loads(out)
