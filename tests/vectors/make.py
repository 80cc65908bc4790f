"""Make the frozen vectors of the formats: `python -m tests.vectors.make`, from the top of the project.

They pin the bytes of format version 1 and must never change; that is why existing ones are overwritten only with
`--force`. If a change of the code changes them, the change is wrong, or it needs a new format version.

* chunks.json: chunk lengths of generated data. Generators (tests/store/samples.py has them in three lines each): `stream`,
  the extendable output of BLAKE3 for the seed as ASCII text; `text`, for each byte b of `stream` the word number b & 7 of
  "muon ", "track ", "vertex ", "jet ", "cell ", "hit ", "the ", "of\\n"; `periodic`, the first 1,000 bytes of `stream` again
  and again; `zero`. All are cut to `size`. `digest` is that of the data.
* release.json: the entries of a small release, and the digests of all its documents.
* store/: the docroot of a store that holds this release.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from blake3 import blake3

from pacstore.chunker import Chunker
from tests.store.samples import GENERATORS, Sample, build, items_of

HERE = Path(__file__).parent
NAME = "Vectors-1.0-any"
DATA = (
    *(("stream", seed, size) for seed in ("a", "b") for size in (1, 16_383, 16_384, 16_385, 65_537, 262_145)),
    ("stream", "c", 3 << 20),
    ("stream", "d", 1_000_003),
    ("text", "e", 3 << 20),
    ("text", "f", 777_777),
    ("periodic", "g", 1 << 20),
    ("zero", "", 16_385),
    ("zero", "", 262_144),
    ("zero", "", 262_145),
    ("zero", "", 1_000_000),
)
ENTRIES = [
    {"path": "bin", "kind": 0, "mtime": 1_700_000_000},
    {"path": "bin/run", "kind": 2, "mtime": 1_700_000_001, "generator": "text", "seed": "run", "size": 300},
    {"path": "bin.txt", "kind": 1, "mtime": -1, "generator": "text", "seed": "txt", "size": 120_001},
    {"path": "data", "kind": 0, "mtime": 0},
    {"path": "data/again", "kind": 1, "mtime": 5, "generator": "text", "seed": "txt", "size": 120_001},
    {"path": "data/empty", "kind": 1, "mtime": 2**31, "generator": "zero", "seed": "", "size": 0},
    {
        "path": "data/linked",
        "kind": 1,
        "mtime": -1,
        "same_as": "bin.txt",
        "generator": "text",
        "seed": "txt",
        "size": 120_001,
    },
    {"path": "data/none", "kind": 0, "mtime": 1},
    {
        "path": "data/odd \u00e4\u0308\u6f22",
        "kind": 1,
        "mtime": 2,
        "generator": "periodic",
        "seed": "p",
        "size": 600_000,
    },
    {"path": "data/up", "kind": 3, "mtime": 3, "target": "../../outside"},
    {"path": "z", "kind": 2, "mtime": 2**33, "generator": "zero", "seed": "", "size": 100_000},
]


def chunks() -> list[dict[str, object]]:
    found = []
    for generator, seed, size in DATA:
        data = GENERATORS[generator](seed, size)
        lengths = Chunker().cut(memoryview(data), last=True)
        digest = blake3(data).hexdigest()
        found.append({"generator": generator, "seed": seed, "size": size, "digest": digest, "lengths": lengths})
    return found


def digests(sample: Sample) -> dict[str, object]:
    names = ("tree", "manifest", "attributes", "placement", "holdings")
    found: dict[str, object] = {name: blake3(getattr(sample, name)).hexdigest() for name in names}
    return {**found, "packs": [blake3(table).hexdigest() for table in sample.tables]}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--force", action="store_true", help="overwrite vectors that are there")
    options = parser.parse_args()
    if (HERE / "chunks.json").exists() and not options.force:
        sys.exit("The vectors are frozen. If a new version of the format wants new ones, add --force.")
    sample = build(items_of(ENTRIES), release=NAME)
    release = {"release": NAME, "frame_bytes": 100_000, "packs": 2, "digests": digests(sample), "entries": ENTRIES}
    for name, value in (("chunks", chunks()), ("release", release)):
        (HERE / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for name, data in sample.files().items():
        (HERE / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / "store" / name).write_bytes(data)


if __name__ == "__main__":
    main()
