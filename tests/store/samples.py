"""Small releases built by hand from the pacstore encoders, and ways to take documents apart and put them together wrongly."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import cbor2
import numpy as np
from blake3 import blake3
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pacstore.attributes import Attributes, encode_attributes
from pacstore.chunker import Chunker
from pacstore.codec import KIND_ZSTD, compress
from pacstore.digest import Digest
from pacstore.errors import PacballError
from pacstore.holdings import Holdings
from pacstore.manifest import Manifest, encode_manifest
from pacstore.pack import HEADER, Table, TableBuilder, ending
from pacstore.placement import Placement
from pacstore.release import Release
from pacstore.tree import EntryKind, Tree, TreeBuilder
from tests import independent_reader as reader

NAME = "Sample-1.0-any"
WORDS = (b"muon ", b"track ", b"vertex ", b"jet ", b"cell ", b"hit ", b"the ", b"of\n")
MIB = 1 << 20
BOUNDED = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def stream(seed: str, size: int) -> bytes:
    """Pseudo-random bytes: the first `size` bytes of BLAKE3's extendable output for the seed."""
    return blake3(seed.encode()).digest(length=size)


def text(seed: str, size: int) -> bytes:
    """Text-like bytes: a word for each byte b of `stream`, number b & 7 of WORDS, cut to `size`."""
    return b"".join(WORDS[b & 7] for b in stream(seed, size // 3 + 1))[:size]


def periodic(seed: str, size: int) -> bytes:
    """The first 1,000 bytes of `stream`, again and again."""
    return (stream(seed, 1000) * (size // 1000 + 1))[:size]


GENERATORS = {"stream": stream, "text": text, "periodic": periodic, "zero": lambda _seed, size: bytes(size)}


@dataclass(frozen=True)
class Item:
    """One entry of a sample: `data` is a file's content or a link's target; `same_as`: hard link to an earlier path."""

    path: str
    kind: EntryKind
    data: bytes = b""
    mtime: int = 0
    same_as: str = ""


@dataclass(frozen=True)
class Sample:
    """All documents of one release, and its packs."""

    release: str
    tree: bytes
    manifest: bytes
    attributes: bytes
    tables: list[bytes]
    packs: list[bytes]
    placement: bytes
    holdings: bytes
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def table(self) -> bytes:
        return self.tables[0]

    def files(self) -> dict[str, bytes]:
        """Its public files by path below the docroot."""
        found = {"store.json": b'{"format":1,"kind":"pacball store"}\n', f"holdings/{self.release}": self.holdings}
        found[f"placements/{self.release}.1"] = self.placement
        for kind, data, name in (
            *(("packs", pack, blake3(table).hexdigest()) for pack, table in zip(self.packs, self.tables, strict=True)),
            ("manifests", self.manifest, blake3(self.manifest).hexdigest()),
            ("attributes", self.attributes, blake3(self.attributes).hexdigest()),
        ):
            found[f"{kind}/{name[:2]}/{name}"] = data
        return found

    def parsed_tree(self) -> Tree:
        return Tree.parse(self.tree, place="sample")

    def parsed_manifest(self) -> Manifest:
        return Manifest.parse(self.manifest, place="sample")


def tree_of(items: list[Item]) -> bytes:
    """The tree document of items that stand in preorder."""
    builder = TreeBuilder()
    for item in items:
        builder.add(item.path.count("/"), item.path.rsplit("/", 1)[-1].encode(), item.kind)
        if item.kind.is_file:
            builder.add_content(len(item.data), blake3(item.data).digest())
        elif item.kind is EntryKind.SYMLINK:
            builder.add_target(item.data)
    return builder.encode()


def build(
    items: list[Item],
    *,
    frame_bytes: int = 100_000,
    packs: int = 2,
    release: str = NAME,
    compressor: Callable[[bytes], bytes] = lambda plain: compress(plain, 3),
) -> Sample:
    """A sample with these items, its new chunks spread over `packs` packs in frames of about `frame_bytes`."""
    items = sorted(items, key=lambda item: [part.encode() for part in item.path.split("/")])
    tree = tree_of(items)
    lengths, ids, counts, plain = _chunks([item.data for item in items if item.kind.is_file])
    manifest = encode_manifest(
        tree,
        np.array(counts, "<u4").tobytes(),
        np.array(lengths, "<u4").tobytes(),
        b"".join(ids),
    )
    tables, pack_bytes, rows, places = _pack(ids, plain, frame_bytes, packs, compressor)
    number = {item.path: n for n, item in enumerate(items)}
    groups: dict[str, list[int]] = {}
    for item in items:
        if item.same_as:
            groups.setdefault(item.same_as, [number[item.same_as]]).append(number[item.path])
    attributes = encode_attributes(Digest.of(tree), [item.mtime for item in items], list(groups.values()))
    column = [np.array([row[n] for row in rows], dtype) for n, dtype in enumerate(("<u4", "u1", "<u8", "<u4", "<u4"))]
    placement = Placement(
        Release.parse(release),
        Digest.of(manifest),
        1,
        _rows([blake3(t).digest() for t in tables]),
        np.array([len(p) for p in pack_bytes], "<u8"),
        *column,
        _rows([row[5] for row in rows]),
        np.array([places[i][0] for i in ids], "<u4"),
        np.array([places[i][1] for i in ids], "<u4"),
    ).encode()
    holdings = Holdings(
        Release.parse(release), *(Digest.of(d) for d in (tree, manifest, attributes, placement)), placement_number=1
    ).encode()
    contents = {item.path: item.data for item in items if item.kind.is_file}
    return Sample(release, tree, manifest, attributes, tables, pack_bytes, placement, holdings, contents)


def _rows(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), 32)


def _chunks(contents: list[bytes]) -> tuple[list[int], list[bytes], list[int], dict[bytes, bytes]]:
    lengths: list[int] = []
    ids: list[bytes] = []
    counts: list[int] = []
    plain: dict[bytes, bytes] = {}
    for content in contents:
        cuts, at = Chunker().cut(memoryview(content), last=True), 0
        counts.append(len(cuts))
        lengths += cuts
        for length in cuts:
            ids.append(blake3(content[at : at + length]).digest())
            plain[ids[-1]] = content[at : at + length]
            at += length
    return lengths, ids, counts, plain


def _pack(
    ids: list[bytes], plain: dict[bytes, bytes], frame_bytes: int, packs: int, compressor: Callable[[bytes], bytes]
) -> tuple[list[bytes], list[bytes], list[tuple[int, int, int, int, int, bytes]], dict[bytes, tuple[int, int]]]:
    frames: list[list[bytes]] = []
    for chunk in dict.fromkeys(ids):
        if not frames or sum(len(plain[i]) for i in frames[-1]) >= frame_bytes:
            frames.append([])
        frames[-1].append(chunk)
    tables, pack_bytes, rows, places = [], [], [], {}
    share = -(-len(frames) // packs) or 1
    for pack, first in enumerate(range(0, len(frames), share)):
        builder, body = TableBuilder(), b""
        for chunks in frames[first : first + share]:
            whole, at = b"".join(plain[i] for i in chunks), 0
            packed = compressor(whole)
            for chunk in chunks:
                places[chunk] = (len(rows), at)
                at += len(plain[chunk])
            rows.append((pack, KIND_ZSTD, builder.end, len(packed), len(whole), blake3(packed).digest()))
            builder.add(KIND_ZSTD, packed, b"".join(chunks), [len(plain[i]) for i in chunks])
            body += packed
        tables.append(builder.encode())
        pack_bytes.append(HEADER + body + ending(tables[-1]))
    return tables, pack_bytes, rows, places


def items_of(entries: list[dict]) -> list[Item]:
    """The items that tests/vectors/release.json describes."""
    return [
        Item(
            entry["path"],
            EntryKind(entry["kind"]),
            GENERATORS[entry["generator"]](entry["seed"], entry["size"])
            if "generator" in entry
            else entry.get("target", "").encode(),
            entry["mtime"],
            entry.get("same_as", ""),
        )
        for entry in entries
    ]


def ordinary() -> Sample:
    """A release with everything in it: several chunks, duplicates, links, hard links, empty and odd names."""
    kind = EntryKind
    big = text("big", 500_000)
    return build(
        [
            Item("bin", kind.DIRECTORY, mtime=1_700_000_000),
            Item("bin/run", kind.EXECUTABLE, b"#!/bin/sh\nexit 0\n", 1_700_000_001),
            Item("bin/run-too", kind.EXECUTABLE, b"#!/bin/sh\nexit 0\n", 1_700_000_001, "bin/run"),
            Item("bin.d", kind.SYMLINK, b"/nowhere/at all", -5),
            Item("data", kind.DIRECTORY, mtime=0),
            Item("data/big.txt", kind.FILE, big, 1_000_000_000),
            Item("data/big2.txt", kind.FILE, big + b"more", 1_000_000_000),
            Item("data/empty", kind.FILE, b"", 2**31),
            Item("data/empty2", kind.FILE, b"", 2**31, "data/empty"),
            Item("data/none", kind.DIRECTORY),
            Item("data/r\u00e4tsel \u6f22", kind.FILE, b"x", 5),
            Item("data/up", kind.SYMLINK, b"../data/none", 6),
            Item("z", kind.FILE, stream("z", 20_000), 7),
        ]
    )


def smallest() -> Sample:
    """A release without any entry."""
    return build([])


# Documents taken apart


Sections = list[tuple[str, bytes]]


def take(data: bytes) -> tuple[bytes, dict, Sections]:
    """The magic, the header without `sections`, and the sections of a well-formed document."""
    length = int.from_bytes(data[8:12], "little")
    header = cbor2.loads(data[12 : 12 + length])
    at, sections = 12 + length, []
    for name, size in header.pop("sections"):
        sections.append((name, data[at : at + size]))
        at += size
    return data[:8], header, sections


def put(magic: bytes, header: dict, sections: Sections) -> bytes:
    """The document with this header and these sections, right or wrong."""
    return raw(magic, cbor2.dumps({**header, "sections": [[n, len(s)] for n, s in sections]}, canonical=True), sections)


def raw(magic: bytes, header: bytes, sections: Sections) -> bytes:
    """The document whose header has these bytes."""
    return struct.pack("<8sI", magic, len(header)) + header + b"".join(s for _, s in sections)


def edit(data: bytes, *, header: dict | None = None, **sections: object) -> bytes:
    """The document with header values and whole sections replaced (bytes, or (dtype, values))."""
    magic, old, parts = take(data)
    new = {
        name: value if isinstance(value, bytes) else np.array(value[1], value[0]).tobytes()
        for name, value in sections.items()
    }
    assert set(new) <= {name for name, _ in parts}
    return put(magic, {**old, **(header or {})}, [(name, new.get(name, part)) for name, part in parts])


def column(data: bytes, section: str, dtype: str) -> np.ndarray:
    """A section's elements, to be changed."""
    return np.frombuffer(dict(take(data)[2])[section], dtype).copy()


# What pacstore and the independent reader make of a document


def reencode_tree(tree: Tree) -> bytes:
    builder = TreeBuilder()
    for entry in tree.walk():
        builder.add(entry.path.count("/"), entry.path.rsplit("/", 1)[-1].encode(), entry.kind)
        if entry.kind.is_file:
            builder.add_content(entry.size, entry.content)
        elif entry.kind is EntryKind.SYMLINK:
            builder.add_target(entry.target.encode())
    return builder.encode()


def reencode_manifest(manifest: Manifest) -> bytes:
    columns = manifest.chunk_counts, manifest.chunk_lengths, manifest.chunk_ids
    return encode_manifest(reencode_tree(manifest.tree), *(c.tobytes() for c in columns))


def reencode_attributes(attributes: Attributes, tree: Tree) -> bytes:
    return encode_attributes(tree.digest, attributes.mtimes.tolist(), attributes.groups())


def reencode_table(table: Table) -> bytes:
    builder = TableBuilder()
    for frame in table.frames():
        first, last = (int(n) for n in table.first_chunks[frame.number : frame.number + 2])
        builder.kinds.append(frame.kind)
        builder.lengths.append(frame.length)
        builder.digests += frame.digest
        builder.chunk_counts.append(last - first)
        builder.chunk_lengths.extend(table.chunk_lengths[first:last].tolist())
        builder.chunk_ids += table.chunk_ids[first:last].tobytes()
    return builder.encode()


class Verdicts:
    """How both parsers judge a document of one kind in the context of a sample; None = accepted."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.tree, self.manifest = sample.parsed_tree(), sample.parsed_manifest()
        self.reader_manifest = reader.parse_manifest(sample.manifest)

    def pacstore(self, kind: str, data: bytes) -> PacballError | None:
        """Refused with one of our errors, or accepted and then encoded again to the same bytes. Nothing else."""
        try:
            again = self._again(kind, data)
        except PacballError as error:
            return error
        assert again == data or _has_more(kind, data), "accepted, but another encoding"
        return None

    def _again(self, kind: str, data: bytes) -> bytes:
        if kind == "tree":
            return reencode_tree(Tree.parse(data, place="test"))
        if kind == "manifest":
            return reencode_manifest(Manifest.parse(data, place="test"))
        if kind == "attributes":
            return reencode_attributes(Attributes.parse(data, self.tree, place="test"), self.tree)
        if kind == "table":
            return reencode_table(Table.parse(data, place="test"))
        placement = Placement.parse(data, self.manifest, place="test")
        assert all(placement.range_of(n, n).length > 0 for n in range(placement.frames))
        return placement.encode()

    def independent(self, kind: str, data: bytes, release: str = NAME) -> str | None:
        try:
            if kind == "tree":
                reader.parse_tree(data)
            elif kind == "manifest":
                reader.parse_manifest(data)
            elif kind == "attributes":
                reader.parse_attributes(data, self.reader_manifest.tree)
            elif kind == "table":
                reader.parse_table(data)
            else:
                reader.parse_placement(data, self.reader_manifest, release)
        except reader.Wrong as wrong:
            return str(wrong)
        return None


def _has_more(kind: str, data: bytes) -> bool:
    """Whether a document that may have them has header keys or sections that this version does not know."""
    known = {"table": (2, 6), "placement": (6, 10)}.get(kind)
    _, header, sections = take(data)
    return known is not None and (len(header), len(sections)) != known


# Mutations


INTERESTING = (0, 1, 2, 3, 7, 8, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
HEADER_VALUES = st.one_of(
    st.sampled_from([*INTERESTING, 2**64, -1, 1.5, None, True, "x", b"x" * 32, [], {}, [[[[1]]]], {"b": {"a": [1]}}]),
    st.integers(0, 12),
)


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """`data`, a valid document, changed once or a few times: in its bytes, its header, its sections or one number."""
    for _ in range(draw(st.integers(1, 2))):
        how = draw(
            st.sampled_from(("flip", "cut", "insert", "remove", "header", "sections", "number", "number", "number"))
        )
        try:
            data = _BYTES[how](draw, data) if how in _BYTES else _PARTS[how](draw, *take(data))
        except (cbor2.CBORError, ValueError, TypeError, AttributeError, KeyError, MemoryError):
            continue  # an earlier mutation left nothing to take apart
    return data


def _flip(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.one_of(st.integers(0, min(len(data) - 1, 400)), st.integers(0, len(data) - 1)))
    return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]


def _cut(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: draw(st.integers(0, len(data) - 1))]


def _insert(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(min_size=1, max_size=40)) + data[at:]


def _remove(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + data[at + draw(st.integers(1, 40)) :]


def _header(draw: st.DrawFn, magic: bytes, header: dict, sections: Sections) -> bytes:
    key = draw(st.sampled_from([*header, "later", "sections"]))
    if key != "sections" and draw(st.booleans()) and key in header:
        del header[key]
        return put(magic, header, sections)
    value = draw(HEADER_VALUES)
    if key == "sections":
        return raw(magic, cbor2.dumps({**header, "sections": value}, canonical=True), sections)
    return put(magic, {**header, key: value}, sections)


def _sections(draw: st.DrawFn, magic: bytes, header: dict, sections: Sections) -> bytes:
    at = draw(st.integers(0, len(sections) - 1))
    how = draw(st.sampled_from(("again", "swap", "drop", "rename", "more", "longer", "shorter")))
    name, part = sections[at]
    if how == "again":
        sections.insert(draw(st.integers(0, len(sections))), (name, part))
    elif how == "swap":
        other = draw(st.integers(0, len(sections) - 1))
        sections[at], sections[other] = sections[other], sections[at]
    elif how == "drop":
        del sections[at]
    elif how == "rename":
        sections[at] = (name + "x", part)
    elif how == "more":
        sections.append(("later", b"12345"))
    else:
        sections[at] = (name, part + bytes(8) if how == "longer" else part[: -draw(st.sampled_from((1, 4, 8, 32)))])
    return put(magic, header, sections)


def _number(draw: st.DrawFn, magic: bytes, header: dict, sections: Sections) -> bytes:
    """One number of a column becomes an interesting one, or one near to what it was."""
    at = draw(st.integers(0, len(sections) - 1))
    width = draw(st.sampled_from((1, 2, 4, 4, 8)))
    name, part = sections[at]
    if len(part) < width:
        return put(magic, header, sections)
    place = draw(st.integers(0, len(part) // width - 1)) * width
    old = int.from_bytes(part[place : place + width], "little")
    value = draw(st.one_of(st.sampled_from(INTERESTING), st.integers(-3, 3).map(lambda step: old + step)))
    new = (value % (1 << 8 * width)).to_bytes(width, "little")
    sections[at] = (name, part[:place] + new + part[place + width :])
    return put(magic, header, sections)


_BYTES = {"flip": _flip, "cut": _cut, "insert": _insert, "remove": _remove}
_PARTS = {"header": _header, "sections": _sections, "number": _number}
