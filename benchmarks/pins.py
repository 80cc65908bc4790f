"""Which wheels make the benchmark trees. Pinned, so that everyone measures the same bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stack:
    """One tree: its name and the wheels (``name==version``) that are unpacked over each other, in this order."""

    name: str
    wheels: tuple[str, ...]


# Two successive versions of one stack: about 1.15 GB and 18,000 files each, a third of the bytes differ.
_PAIR = """
scipy                   1.14.0    1.14.1
numpy                   2.1.0     2.1.1
pyarrow                 17.0.0    17.0.0
opencv-python-headless  4.10.0.82 4.10.0.84
polars                  1.9.0     1.9.0
llvmlite                0.43.0    0.43.0
pandas                  2.2.2     2.2.3
scikit-learn            1.5.1     1.5.2
numba                   0.60.0    0.60.0
duckdb                  1.1.0     1.1.1
botocore                1.35.0    1.35.1
boto3                   1.35.0    1.35.1
django                  5.1       5.1.1
matplotlib              3.9.1     3.9.2
pillow                  10.4.0    10.4.0
cryptography            43.0.0    43.0.1
grpcio                  1.66.0    1.66.1
onnxruntime             1.19.0    1.19.2
transformers            4.44.0    4.44.2
tokenizers              0.19.1    0.19.1
sympy                   1.13.1    1.13.1
mypy                    1.11.1    1.11.2
ruff                    0.6.0     0.6.1
"""

# One tree of several gigabytes, with single files of hundreds of megabytes.
LARGE = Stack(
    "B",
    (
        "torch==2.14.1",
        "nvidia-cublas==13.10.0.20",
        "nvidia-cudnn-cu13==9.28.0.42",
        "nvidia-cufft==12.5.0.14",
        "triton==3.9.0",
    ),
)

# Ten successive versions of a smaller stack; a column is a version of the stack, 9 to 14 packages change at each step.
_HISTORY = """
numpy         2.0.0  2.0.1  2.0.1  2.0.2  2.0.2  2.1.0  2.1.1  2.1.1  2.1.2  2.1.3
scipy         1.13.0 1.13.0 1.13.1 1.13.1 1.13.1 1.14.0 1.14.0 1.14.0 1.14.1 1.14.1
pandas        2.2.0  2.2.1  2.2.1  2.2.1  2.2.2  2.2.2  2.2.2  2.2.2  2.2.3  2.2.3
pyarrow       16.0.0 16.0.0 16.0.0 16.1.0 16.1.0 16.1.0 17.0.0 17.0.0 17.0.0 18.0.0
polars        1.9.0  1.9.0  1.10.0 1.10.0 1.11.0 1.11.0 1.12.0 1.12.0 1.14.0 1.14.0
duckdb        1.0.0  1.0.0  1.0.0  1.0.0  1.1.0  1.1.0  1.1.1  1.1.2  1.1.2  1.1.3
scikit-learn  1.4.2  1.5.0  1.5.0  1.5.0  1.5.1  1.5.1  1.5.1  1.5.2  1.5.2  1.5.2
matplotlib    3.8.4  3.8.4  3.9.0  3.9.0  3.9.0  3.9.1  3.9.1  3.9.2  3.9.2  3.9.3
botocore      1.35.0 1.35.1 1.35.2 1.35.3 1.35.4 1.35.5 1.35.6 1.35.7 1.35.8 1.35.9
boto3         1.35.0 1.35.1 1.35.2 1.35.3 1.35.4 1.35.5 1.35.6 1.35.7 1.35.8 1.35.9
django        5.0.6  5.0.7  5.0.7  5.0.8  5.0.8  5.1    5.1    5.1.1  5.1.2  5.1.3
cryptography  42.0.7 42.0.7 42.0.8 42.0.8 42.0.8 43.0.0 43.0.0 43.0.1 43.0.1 43.0.3
grpcio        1.64.0 1.64.0 1.64.1 1.64.1 1.65.1 1.65.1 1.66.0 1.66.1 1.66.1 1.66.2
onnxruntime   1.18.0 1.18.0 1.18.0 1.18.1 1.18.1 1.18.1 1.19.0 1.19.0 1.19.2 1.19.2
transformers  4.42.0 4.42.3 4.42.4 4.43.1 4.43.3 4.44.0 4.44.1 4.44.2 4.45.1 4.45.2
tokenizers    0.19.1 0.19.1 0.19.1 0.19.1 0.19.1 0.19.1 0.19.1 0.19.1 0.20.0 0.20.0
sympy         1.12   1.12   1.12.1 1.12.1 1.13.0 1.13.0 1.13.1 1.13.1 1.13.2 1.13.2
mypy          1.10.0 1.10.1 1.10.1 1.11.0 1.11.0 1.11.1 1.11.1 1.11.2 1.11.2 1.12.0
ruff          0.6.0  0.6.1  0.6.2  0.6.3  0.6.3  0.6.4  0.6.5  0.6.6  0.6.6  0.6.7
pillow        10.3.0 10.3.0 10.3.0 10.4.0 10.4.0 10.4.0 10.4.0 10.4.0 10.4.0 11.0.0
sqlalchemy    2.0.30 2.0.30 2.0.31 2.0.31 2.0.31 2.0.32 2.0.32 2.0.33 2.0.33 2.0.34
lxml          5.2.1  5.2.2  5.2.2  5.2.2  5.2.2  5.2.2  5.3.0  5.3.0  5.3.0  5.3.0
"""


def _columns(table: str, names: str) -> tuple[Stack, ...]:
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(
        Stack(names.format(number), tuple(f"{row[0]}=={row[number]}" for row in rows))
        for number in range(1, len(rows[0]))
    )


PAIR = _columns(_PAIR, "A{}")
HISTORY = _columns(_HISTORY, "T{:02}")
STACKS = {stack.name: stack for stack in (*PAIR, LARGE, *HISTORY)}
