"""The frozen vectors: these bytes never change, and both readers know what they mean."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from pacstore.attributes import Attributes
from pacstore.chunker import Chunker
from pacstore.codec import decompress
from pacstore.digest import Digest
from pacstore.holdings import Holdings
from pacstore.manifest import Manifest
from pacstore.pack import read_frame, read_table
from pacstore.placement import Placement
from pacstore.tree import EntryKind
from tests import independent_reader as reader
from tests.store.samples import GENERATORS, build, items_of, reencode_manifest

VECTORS = Path(__file__).parents[1] / "vectors"
DOCROOT = VECTORS / "store"
CHUNKS = json.loads((VECTORS / "chunks.json").read_text("utf-8"))
RELEASE = json.loads((VECTORS / "release.json").read_text("utf-8"))
NAME = RELEASE["release"]
ITEMS = items_of(RELEASE["entries"])


def frozen(path: str) -> bytes:
    return (DOCROOT / path).read_bytes()


def addressed(kind: str, digest: str) -> bytes:
    return frozen(f"{kind}/{digest[:2]}/{digest}")


@pytest.mark.parametrize("vector", CHUNKS, ids=lambda v: f"{v['generator']}-{v['seed']}-{v['size']}")
def test_chunk_boundaries(vector):
    data = GENERATORS[vector["generator"]](vector["seed"], vector["size"])
    assert blake3(data).hexdigest() == vector["digest"]
    assert Chunker().cut(memoryview(data), last=True) == vector["lengths"]


def test_every_document_is_encoded_to_the_frozen_bytes():
    """The compressed frames are taken from the frozen packs: another version of zstd may write others."""
    compressed = {}
    for pack in RELEASE["digests"]["packs"]:
        with (DOCROOT / "packs" / pack[:2] / pack).open("rb") as file:
            for frame in read_table(file, place=pack).frames():
                packed = read_frame(file, frame.offset, frame.length, frame.digest, place=pack)
                plain = decompress(frame.kind, packed, frame.plain_length, place=pack)
                compressed[plain] = packed
    sample = build(
        ITEMS,
        release=NAME,
        frame_bytes=RELEASE["frame_bytes"],
        packs=RELEASE["packs"],
        compressor=compressed.__getitem__,
    )
    files = sample.files()
    assert set(files) == {str(p.relative_to(DOCROOT)) for p in DOCROOT.rglob("*") if p.is_file()}
    for path, data in files.items():
        assert data == frozen(path), path
    expected = RELEASE["digests"]
    assert [blake3(table).hexdigest() for table in sample.tables] == expected["packs"]
    for name in ("tree", "manifest", "attributes", "placement", "holdings"):
        assert blake3(getattr(sample, name)).hexdigest() == expected[name]


def test_pacstore_reads_the_frozen_store():
    expected = RELEASE["digests"]
    holdings = Holdings.parse(frozen(f"holdings/{NAME}"), place="frozen")
    assert (str(holdings.release), holdings.tree_digest.hex) == (NAME, expected["tree"])
    data = addressed("manifests", holdings.manifest_digest.hex)
    manifest = Manifest.parse(data, place="frozen")
    assert (manifest.tree.digest.hex, reencode_manifest(manifest)) == (expected["tree"], data)
    assert [e.path for e in manifest.tree.walk()] == [item.path for item in ITEMS]
    attributes = Attributes.parse(addressed("attributes", expected["attributes"]), manifest.tree, place="frozen")
    assert attributes.mtimes.tolist() == [item.mtime for item in ITEMS]
    assert [[ITEMS[n].path for n in group] for group in attributes.groups()] == [["bin.txt", "data/linked"]]
    data = frozen(f"placements/{NAME}.1")
    placement = Placement.parse(data, manifest, place="frozen")
    assert (Digest.of(data), placement.encode()) == (holdings.placement_digest, data)


def check_extracted(out: Path) -> None:
    found = {str(p.relative_to(out)) for p in out.rglob("*")}
    assert found == {item.path for item in ITEMS}
    for item in ITEMS:
        path = out / item.path
        status = path.lstat()
        assert int(status.st_mtime) == item.mtime
        if item.kind is EntryKind.SYMLINK:
            assert os.readlink(path) == item.data.decode()
        elif item.kind is EntryKind.DIRECTORY:
            assert path.is_dir()
        else:
            assert path.read_bytes() == item.data
            assert bool(status.st_mode & 0o100) == (item.kind is EntryKind.EXECUTABLE)
            assert status.st_nlink == (2 if item.path in ("bin.txt", "data/linked") else 1)
    assert (out / "bin.txt").samefile(out / "data/linked")


def test_the_independent_reader_extracts_the_frozen_release(tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-I", reader.__file__, DOCROOT, NAME, out], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == RELEASE["digests"]["tree"]
    check_extracted(out)


def test_extraction_needs_nothing_of_a_pack_but_its_frames_and_notices_when_they_are_damaged(tmp_path):
    docroot = tmp_path / "store"
    shutil.copytree(DOCROOT, docroot)
    packs = list(docroot.glob("packs/*/*"))
    for path in packs:
        data = path.read_bytes()
        begin = data.index(b"PBTABL01")
        path.write_bytes(data[:begin] + bytes(len(data) - begin))
    reader.Store(docroot, NAME).extract(tmp_path / "out")
    check_extracted(tmp_path / "out")
    packs[0].write_bytes(packs[0].read_bytes().replace(b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfc"))
    with pytest.raises(reader.Wrong, match="a damaged frame"):
        reader.Store(docroot, NAME).extract(tmp_path / "again")


def test_the_independent_reader_knows_nothing_of_the_project():
    lines = Path(reader.__file__).read_text("utf-8").splitlines()
    imports = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert {name for name in imports if name not in sys.stdlib_module_names} == {"zstandard", "blake3"}


FILES = sorted(str(p.relative_to(DOCROOT)) for p in DOCROOT.rglob("*") if p.is_file() and p.name != "store.json")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.split("/")[0])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.98])
def test_the_independent_reader_notices_a_flipped_bit(path, where, tmp_path):
    docroot = tmp_path / "store"
    shutil.copytree(DOCROOT, docroot)
    data = bytearray((docroot / path).read_bytes())
    data[int(where * len(data))] ^= 1
    (docroot / path).write_bytes(data)
    with pytest.raises((reader.Wrong, FileNotFoundError)):  # noqa: PT012
        store = reader.Store(docroot, NAME)
        for pack, _ in store.packs:
            reader.need(reader.check_pack(store.at("packs", pack.hex())) == pack, "another pack")
        store.extract(tmp_path / "out")


def test_the_vectors_are_not_overwritten_by_accident():
    top = VECTORS.parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.vectors.make"], cwd=top, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "frozen" in done.stderr
