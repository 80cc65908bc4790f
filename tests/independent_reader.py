"""A reader of pacball stores that was written from store/FORMAT.md alone and shares no code with the project.

    python tests/independent_reader.py DOCROOT RELEASE OUTDIR

It checks every digest and every rule of the format on the way, and uses packs through the placement only. Catalog
signatures are out of its scope: the digests are those of the holdings file. `check_pack` verifies a pack from its file
alone. Whatever it refuses, it refuses with `Wrong`.
"""

import argparse
import json
import os
import re
import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import zstandard
from blake3 import blake3

MIB, GIB = 1 << 20, 1 << 30
MAX_ENTRIES, MAX_CHUNKS, MAX_HEADER, MAX_NESTING = 10_000_000, 100_000_000, 65_536, 3
MAX_NUMBER = (1 << 63) - 1
MAX_PLAIN, MAX_COMPRESSED, MAX_WINDOW = 2 * MIB, 2 * MIB + 65_536, 8 * MIB
SIZE_LIMITS = {"TREE": 2 * GIB, "MANI": 8 * GIB, "ATTR": 8 * GIB, "PLAC": 8 * GIB, "TABL": 256 * MIB}
CHUNKER = {"name": "fastcdc-2020", "min": 16_384, "avg": 65_536, "max": 262_144, "normalization": 1}
CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "d32": "32s"}
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f/]")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*-[0-9A-Za-z][0-9A-Za-z._]*-[A-Za-z0-9._-]+")
EXTEND = {24: 1, 25: 2, 26: 4, 27: 8}


class Wrong(Exception):
    """Something breaks a rule of the format."""


def need(condition, rule):
    if not condition:
        raise Wrong(rule)


def digest(data):
    return blake3(data).digest()


def decode_cbor(data, at=0, nesting=0):
    """One item of deterministic CBOR at an offset: (value, the offset behind it)."""
    need(at < len(data) and nesting <= MAX_NESTING, "CBOR: ends early, or is nested too deep")
    major, value = data[at] >> 5, data[at] & 31
    at += 1
    need(major in (0, 2, 3, 4, 5), "CBOR: a type that is not allowed")
    if value >= 24:
        need(value in EXTEND, "CBOR: reserved or indefinite length")
        size = EXTEND[value]
        need(at + size <= len(data), "CBOR: ends early")
        value, at = int.from_bytes(data[at : at + size], "big"), at + size
        need(value >= (24 if size == 1 else 1 << (4 * size)), "CBOR: not the shortest integer")
    if major == 0:
        return value, at
    need(value <= len(data) - at, "CBOR: ends early")
    if major in (2, 3):
        raw = bytes(data[at : at + value])
        return (raw if major == 2 else text_of(raw)), at + value
    if major == 4:
        items = []
        for _ in range(value):
            item, at = decode_cbor(data, at, nesting + 1)
            items.append(item)
        return items, at
    result, before = {}, b""
    for _ in range(value):
        start = at
        key, at = decode_cbor(data, at, nesting + 1)
        need(isinstance(key, str), "CBOR: a key that is no text")
        need(before < data[start:at], "CBOR: keys out of order")
        before = data[start:at]
        result[key], at = decode_cbor(data, at, nesting + 1)
    return result, at


def text_of(raw):
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise Wrong("not UTF-8") from None


class Document:
    """The envelope that all documents have in common: a header, and sections that are taken in their order."""

    def __init__(self, data, kind, keys, more=False, version=1):
        need(len(data) <= SIZE_LIMITS[kind], "a document beyond its limit")
        need(bytes(data[:8]) == f"PB{kind}{version:02}".encode(), "another magic")
        self.data, size = memoryview(data), int.from_bytes(data[8:12], "little")
        need(len(data) >= 12 + size and 1 <= size <= MAX_HEADER, "a wrong header length")
        head = bytes(data[12 : 12 + size])
        self.header, end = decode_cbor(head)
        need(end == size and isinstance(self.header, dict), "the header is not one map")
        have, want = set(self.header), {*keys, "sections"}
        need(have >= want if more else have == want, "wrong keys in the header")
        need(all(type(self.header[key]) is keys[key] for key in keys), "a wrong type in the header")
        self.sections, self.at, self.more = self.header["sections"], 12 + size, more
        need(type(self.sections) is list, "sections are no array")
        for pair in self.sections:
            need(type(pair) is list and [type(x) for x in pair] == [str, int], "a section is no pair")
        need(len({pair[0] for pair in self.sections}) == len(self.sections), "a section twice")
        need(self.at + sum(pair[1] for pair in self.sections) == len(data), "the sections do not fill the document")

    def raw(self, name, size):
        need(
            self.sections and self.sections.pop(0) == [name, size], f"section {name} is not there or has a wrong length"
        )
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def column(self, name, kind, count):
        code = CODES[kind]
        raw = self.raw(name, count * struct.calcsize("<" + code))
        return [row[0] for row in struct.iter_unpack("<" + code, raw)]

    def end(self):
        need(self.more or not self.sections, "a section too many")


def cut(raw, lengths):
    """The texts that stand one after another."""
    texts, at = [], 0
    for length in lengths:
        texts.append(text_of(raw[at : at + length]))
        at += length
    return texts


@dataclass
class Tree:
    digest: bytes
    paths: list
    kinds: list
    files: dict  # entry number -> (size, content digest)
    targets: dict  # entry number -> link target


def parse_tree(data):
    doc = Document(data, "TREE", dict.fromkeys(("entries", "files", "symlinks", "bytes"), int))
    entries, files, links = (doc.header[key] for key in ("entries", "files", "symlinks"))
    need(entries <= MAX_ENTRIES and files + links <= entries, "too many entries")
    depths, kinds = doc.column("depths", "u16", entries), doc.column("kinds", "u8", entries)
    lengths = doc.column("name_lengths", "u8", entries)
    names = cut(doc.raw("names", sum(lengths)), lengths)
    sizes, contents = doc.column("sizes", "u64", files), doc.column("contents", "d32", files)
    lengths = doc.column("target_lengths", "u16", links)
    targets = cut(doc.raw("targets", sum(lengths)), lengths)
    doc.end()
    need(all(kind <= 3 for kind in kinds), "an unknown kind of entry")
    of_files = [n for n, kind in enumerate(kinds) if kind in (1, 2)]
    of_links = [n for n, kind in enumerate(kinds) if kind == 3]
    need(len(of_files) == files and len(of_links) == links, "counts and kinds differ")
    need(sum(sizes) == doc.header["bytes"] <= (1 << 63) - 1, "the sum of the sizes is wrong")
    pairs = zip(sizes, contents, strict=True)
    need(all((size == 0) == (content == digest(b"")) for size, content in pairs), "an empty file's digest")
    need(all(1 <= length <= 4095 for length in lengths) and not any("\0" in t for t in targets), "a wrong link target")
    paths = walk(depths, kinds, names)
    return Tree(
        digest(data),
        paths,
        kinds,
        dict(zip(of_files, zip(sizes, contents, strict=True), strict=False)),
        dict(zip(of_links, targets, strict=False)),
    )


def walk(depths, kinds, names):
    """The paths of entries in preorder."""
    paths, above = [], []  # above: (name, path) of the last entry at each depth
    for n, (depth, name) in enumerate(zip(depths, names, strict=True)):
        raw = name.encode()
        need(raw and not CONTROL.search(name) and name not in (".", ".."), "a wrong name")
        most = len(above) - (kinds[n - 1] != 0) if n else 0
        need(depth <= most and depth <= 2048, "a depth that no directory encloses")
        need(depth >= len(above) or above[depth][0] < raw, "siblings out of order")
        del above[depth:]
        path = f"{above[-1][1]}/{name}" if above else name
        need(len(path.encode()) <= 4096, "a path too long")
        above.append((raw, path))
        paths.append(path)
    return paths


@dataclass
class Manifest:
    digest: bytes
    tree: Tree
    counts: list
    lengths: list
    ids: list
    original: dict | None = None
    rows: list | None = None


def parse_manifest(data):
    keys = {"tree": bytes, "chunks": int, "chunker": dict}
    with_original = bytes(data[:8]) == b"PBMANI02"
    more = {"original": dict} if with_original else {}
    doc = Document(data, "MANI", {**keys, **more}, version=1 + with_original)
    chunks = doc.header["chunks"]
    need(chunks <= MAX_CHUNKS and doc.header["chunker"] == CHUNKER, "too many chunks, or an unknown chunker")
    need(doc.sections, "no tree")
    tree = parse_tree(doc.raw("tree", doc.sections[0][1]))
    need(tree.digest == doc.header["tree"], "another tree")
    counts = doc.column("chunk_counts", "u32", len(tree.files))
    lengths, ids = doc.column("chunk_lengths", "u32", chunks), doc.column("chunk_ids", "d32", chunks)
    original, rows = parse_original(doc, tree) if with_original else (None, None)
    doc.end()
    residue = sum(lengths[sum(counts) :])
    if with_original:
        need(sum(counts) <= chunks, "the chunk counts do not add up")
        need(residue == original["before"] + original["after"] + sum(n for n, _ in rows), "another residue")
    else:
        need(sum(counts) == chunks, "the chunk counts do not add up")
    need(all(1 <= length <= CHUNKER["max"] for length in lengths), "a wrong chunk length")
    need(len(set(ids)) == len(set(zip(ids, lengths, strict=True))), "one id, two lengths")
    at = 0
    for count, (size, content) in zip(counts, tree.files.values(), strict=True):
        need(sum(lengths[at : at + count]) == size, "the chunks of a file do not add up")
        need(count != 1 or ids[at] == content, "the only chunk of a file differs from the file")
        at += count
    return Manifest(digest(data), tree, counts, lengths, ids, original, rows)


def parse_original(doc, tree):
    """(The description of the original, [(literal length, file number)])."""
    original = doc.header["original"]
    numbers = {"length", "before", "after", "plain"}
    need(set(original) == {"name", "sha256", "recompression", *numbers}, "wrong keys in an original")
    need(all(type(original[key]) is int and original[key] < 1 << 63 for key in numbers), "a length of an original")
    need(type(original["sha256"]) is bytes and len(original["sha256"]) == 32, "a digest of an original")
    name = original["name"]
    need(type(name) is str and 1 <= len(name.encode()) <= 255 and not CONTROL.search(name), "a name of an original")
    need("/" not in name and name not in (".", ".."), "a name of an original")
    made = original["recompression"]
    need(type(made) is dict and len(made) <= 16, "no recompression")
    for key, value in made.items():
        need(type(value) is (str if key in ("tool", "version") else int), "a setting of a recompression")
        need(type(value) is int or len(value) <= 200, "a text of a recompression")
    need(not made or {"tool", "version", "skipped"} <= set(made), "a recompression without a tool")
    lengths = [length for name, length in doc.sections if name == "literal_files"]
    count = lengths[0] // 4 if lengths else 0
    need(count <= 10_000_000, "too many rows")
    rows = list(
        zip(doc.column("literal_lengths", "u32", count), doc.column("literal_files", "u32", count), strict=True)
    )
    files = [file for _, file in rows if file != 0xFFFFFFFF]
    sizes = [size for size, _ in tree.files.values()]
    need(len(set(files)) == len(files) and all(file < len(sizes) for file in files), "a file twice, or none")
    plain = sum(length for length, _ in rows) + sum(sizes[file] for file in files)
    need(plain == original["plain"], "plain bytes that do not add up")
    ends = original["before"] + original["after"]
    need(
        min(original["length"], 64 << 20) >= ends if made else original["length"] == ends + plain,
        "an original that does not add up",
    )
    return original, rows


def parse_attributes(data, tree):
    """(modification times, hard-link groups), of entries of a tree."""
    doc = Document(data, "ATTR", {"tree": bytes, "entries": int, "groups": int})
    need(doc.header["tree"] == tree.digest and doc.header["entries"] == len(tree.paths), "attributes of another tree")
    need(2 * doc.header["groups"] <= len(tree.files), "too many groups")
    mtimes = doc.column("mtimes", "i64", len(tree.paths))
    sizes = doc.column("group_sizes", "u32", doc.header["groups"])
    members = doc.column("group_members", "u32", sum(sizes))
    doc.end()
    groups, at = [], 0
    for size in sizes:
        group, at = members[at : at + size], at + size
        need(size >= 2 and group == sorted(set(group)), "a group too small or out of order")
        need(all(n in tree.files for n in group), "a group of something that is no file")
        need(len({(tree.kinds[n], *tree.files[n]) for n in group}) == 1, "a group of different files")
        need(not groups or groups[-1][0] < group[0], "groups out of order")
        groups.append(group)
    need(len(set(members)) == len(members), "an entry in two groups")
    return mtimes, groups


def parse_placement(data, manifest, release):
    """(number, [(pack id, pack length)], [(pack, kind, offset, length, plain length, digest)], [(frame, offset)])."""
    keys = {"release": str, "manifest": bytes, **dict.fromkeys(("number", "packs", "frames", "chunks"), int)}
    doc = Document(data, "PLAC", keys, more=True)
    packs, frames, chunks = (doc.header[key] for key in ("packs", "frames", "chunks"))
    need(
        doc.header["release"] == release and doc.header["manifest"] == manifest.digest, "a placement of another release"
    )
    need(
        chunks == len(manifest.ids) and packs <= frames <= chunks and 1 <= doc.header["number"] <= MAX_NUMBER,
        "wrong counts",
    )
    of_packs = list(zip(doc.column("pack_ids", "d32", packs), doc.column("pack_lengths", "u64", packs), strict=True))
    names = ("frame_packs", "u32"), ("frame_kinds", "u8"), ("frame_offsets", "u64"), ("frame_lengths", "u32")
    names += ("frame_plain_lengths", "u32"), ("frame_digests", "d32")
    of_frames = list(zip(*(doc.column(name, kind, frames) for name, kind in names), strict=True))
    places = list(
        zip(doc.column("chunk_frames", "u32", chunks), doc.column("chunk_offsets", "u32", chunks), strict=True)
    )
    doc.end()
    need(len({pack for pack, _ in of_packs}) == packs, "a pack twice")
    need(all(length <= 4 * GIB for _, length in of_packs), "a pack too long")
    need({frame[0] for frame in of_frames} == set(range(packs)), "an unused or unknown pack")
    need({frame for frame, _ in places} == set(range(frames)), "an unused or unknown frame")
    before = (0, 8)
    for pack, _, offset, length, plain, _ in of_frames:
        need((pack, offset) >= before and offset >= 8, "frames out of order, or overlapping")
        need(offset + length <= of_packs[pack][1] - 16, "a frame beyond its pack")
        need(1 <= length <= MAX_COMPRESSED and 1 <= plain <= MAX_PLAIN, "a wrong length of a frame")
        before = (pack, offset + length)
    for (frame, offset), length in zip(places, manifest.lengths, strict=True):
        need(offset + length <= of_frames[frame][4], "a chunk outside its frame")
    return doc.header["number"], of_packs, of_frames, places


def decode_frame(data, kind, plain):
    """The plain bytes of a frame."""
    need(kind == 1, "an unknown kind of frame")
    need(len(data) >= 6 and data[:4] == b"\x28\xb5\x2f\xfd", "no Zstandard frame")
    flags = data[4]
    single = flags >> 5 & 1
    need(not flags & 8, "zstd: the reserved bit")
    size = (1 if single else 0, 2, 4, 8)[flags >> 6]
    at = 5 + (not single)
    named = (0, 1, 2, 4)[flags & 3]
    need(not any(data[at : at + named]), "zstd: a dictionary")
    at += named
    need(size and len(data) >= at + size, "zstd: no content size")
    declared = int.from_bytes(data[at : at + size], "little") + (256 if size == 2 else 0)
    base = 1 << (10 + (data[5] >> 3))
    need((declared if single else base + base // 8 * (data[5] & 7)) <= MAX_WINDOW, "zstd: the window is too large")
    need(1 <= declared == plain <= MAX_PLAIN, "zstd: another content size")
    at, last = at + size, 0
    while not last:
        need(at + 3 <= len(data), "zstd: ends early")
        block = int.from_bytes(data[at : at + 3], "little")
        last = block & 1
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
    need(at + (flags >> 2 & 1) * 4 == len(data), "zstd: something behind the frame, or it ends early")
    try:
        result = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompress(data, max_output_size=plain)
    except zstandard.ZstdError as error:
        raise Wrong(f"zstd: {error}") from None
    need(len(result) == plain, "zstd: another length")
    return result


def parse_table(data):
    """[(offset, kind, length, digest, [(chunk length, chunk id)])], and the length of the frames."""
    doc = Document(data, "TABL", {"frames": int, "chunks": int}, more=True)
    frames, chunks = doc.header["frames"], doc.header["chunks"]
    need(frames <= 65_536 and frames <= chunks <= frames * 4096, "wrong counts")
    kinds, lengths = doc.column("kinds", "u8", frames), doc.column("lengths", "u32", frames)
    digests, counts = doc.column("digests", "d32", frames), doc.column("chunk_counts", "u32", frames)
    rows = list(zip(doc.column("chunk_lengths", "u32", chunks), doc.column("chunk_ids", "d32", chunks), strict=True))
    doc.end()
    need(sum(counts) == chunks and all(length >= 1 for length, _ in rows), "wrong chunks in a table")
    table, offset, chunk = [], 8, 0
    for kind, length, check, count in zip(kinds, lengths, digests, counts, strict=True):
        need(1 <= count <= 4096 and 1 <= length <= MAX_COMPRESSED, "a wrong frame in a table")
        here = rows[chunk : chunk + count]
        need(sum(length for length, _ in here) <= MAX_PLAIN, "a frame too long")
        table.append((offset, kind, length, check, here))
        offset, chunk = offset + length, chunk + count
    return table, offset - 8


def check_pack(path):
    """Verify a pack from its file alone; its id."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        need(36 <= size <= 4 * GIB, "a wrong length of a pack")
        file.seek(0)
        need(file.read(8) == b"PBPACK01", "no pack")
        file.seek(size - 16)
        length, end = int.from_bytes(file.read(8), "little"), file.read(8)
        need(end == b"PBPEND01" and length <= min(SIZE_LIMITS["TABL"], size - 24), "a wrong end of a pack")
        file.seek(size - 16 - length)
        raw = file.read(length)
        table, frames = parse_table(raw)
        need(size == 8 + frames + length + 16, "a pack's length is not what its table implies")
        for offset, kind, length, check, chunks in table:
            file.seek(offset)
            packed = file.read(length)
            need(digest(packed) == check, "a damaged frame")
            plain, at = decode_frame(packed, kind, sum(size for size, _ in chunks)), 0
            for size, chunk in chunks:
                need(digest(plain[at : at + size]) == chunk, "a damaged chunk")
                at += size
    return digest(raw)


def read_json(raw, limit):
    def unique(pairs):
        need(len(dict(pairs)) == len(pairs), "JSON: a key twice")
        return dict(pairs)

    need(len(raw) <= limit, "JSON: too long")
    try:
        value = json.loads(text_of(raw), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise Wrong("no JSON") from None
    need(isinstance(value, dict), "JSON: no object")
    need(type(value.get("format")) is int and value["format"] == 1, "another format")
    return value


def parse_holdings(raw, release):
    value = read_json(raw, 65_536)
    for key in ("attributes_digest", "manifest_digest", "placement_digest", "tree_digest"):
        need(isinstance(value.get(key), str) and re.fullmatch("[0-9a-f]{64}", value[key]), f"wrong {key}")
    number = value.get("placement_number")
    need(
        type(number) is int and 1 <= number <= MAX_NUMBER and value.get("release") == release,
        "holdings of another release",
    )
    return value


def is_release_name(name):
    return bool(NAME.fullmatch(name)) and len(name) <= 150 and ".." not in name and not name.endswith(".")


class Store:
    """One release of a public docroot, whole and checked except for its packs."""

    def __init__(self, docroot, release):
        need(is_release_name(release), "no release name")
        self.root = Path(docroot)
        store = read_json((self.root / "store.json").read_bytes(), 4096)
        need(store.get("kind") == "pacball store", "no store")
        holdings = parse_holdings((self.root / "holdings" / release).read_bytes(), release)
        self.manifest = parse_manifest(self.read("manifests", holdings["manifest_digest"]))
        self.tree = self.manifest.tree
        need(self.tree.digest.hex() == holdings["tree_digest"], "holdings with another tree")
        attributes = self.read("attributes", holdings["attributes_digest"])
        self.mtimes, self.groups = parse_attributes(attributes, self.tree)
        raw = (self.root / "placements" / f"{release}.{holdings['placement_number']}").read_bytes()
        need(digest(raw).hex() == holdings["placement_digest"], "another placement")
        number, self.packs, self.frames, self.places = parse_placement(raw, self.manifest, release)
        need(number == holdings["placement_number"], "another placement number")
        self.check_link(release, "manifest", self.read("manifests", holdings["manifest_digest"]))
        self.check_link(release, "attributes", attributes)
        self.check_link(release, "placement", raw)
        self.recent = {}

    def check_link(self, release, name, raw):
        """The same bytes under the name that other clients of TUF know, where that is there."""
        path = self.root / "releases" / release.partition("-")[0] / release / f"{sha256(raw).hexdigest()}.{name}"
        need(not path.exists() or path.read_bytes() == raw, "a link to something else")

    def at(self, kind, name):
        return self.root / kind / name[:2] / name

    def read(self, kind, name):
        raw = self.at(kind, name).read_bytes()
        need(digest(raw).hex() == name, f"{kind}: another digest")
        return raw

    def frame(self, number):
        if number not in self.recent:
            pack, kind, offset, length, plain, check = self.frames[number]
            name, size = self.packs[pack]
            with self.at("packs", name.hex()).open("rb") as file:
                need(file.seek(0, os.SEEK_END) == size, "a pack of another length")
                file.seek(offset)
                packed = file.read(length)
            need(digest(packed) == check, "a damaged frame")
            if len(self.recent) == 16:
                self.recent.pop(next(iter(self.recent)))
            self.recent[number] = decode_frame(packed, kind, plain)
        return self.recent[number]

    def chunk(self, number):
        frame, offset = self.places[number]
        plain = self.frame(frame)[offset : offset + self.manifest.lengths[number]]
        need(digest(plain) == self.manifest.ids[number], "a damaged chunk")
        return plain

    def original(self):
        """The file that the release was taken in from, if it needs no compressing."""
        described, rows = self.manifest.original, self.manifest.rows
        need(not described["recompression"], "a stream, for which a tool is needed")
        begins = [0]
        for count in self.manifest.counts:
            begins.append(begins[-1] + count)
        residue = b"".join(map(self.chunk, range(begins[-1], len(self.manifest.ids))))
        ends = described["before"], described["before"] + described["after"]
        whole, at = [residue[: ends[0]]], ends[1]
        for length, file in rows:
            whole.append(residue[at : at + length])
            at += length
            if file != 0xFFFFFFFF:
                whole += map(self.chunk, range(begins[file], begins[file + 1]))
        whole.append(residue[ends[0] : ends[1]])
        data = b"".join(whole)
        need(len(data) == described["length"] and sha256(data).digest() == described["sha256"], "another original")
        return data

    def extract(self, outdir):
        """Write the release into a new directory: files, hard links, symbolic links, times."""
        out, tree, at = Path(outdir), self.tree, 0
        out.mkdir()
        first = {n: group[0] for group in self.groups for n in group[1:]}
        for path, kind in zip(tree.paths, tree.kinds, strict=True):
            if kind == 0:
                (out / path).mkdir()
        for (n, (_, content)), count in zip(tree.files.items(), self.manifest.counts, strict=True):
            whole = blake3()
            with (out / tree.paths[n]).open("xb") as file:
                for chunk in map(self.chunk, range(at, at + count)):
                    whole.update(chunk)
                    file.write(chunk)
            need(whole.digest() == content, "a damaged file")
            (out / tree.paths[n]).chmod(0o755 if tree.kinds[n] == 2 else 0o644)
            at += count
            if n in first:
                (out / tree.paths[n]).unlink()
                (out / tree.paths[n]).hardlink_to(out / tree.paths[first[n]])
        for n, target in tree.targets.items():
            (out / tree.paths[n]).symlink_to(target)
        for path, mtime in zip(reversed(tree.paths), reversed(self.mtimes), strict=True):
            os.utime(out / path, (mtime, mtime), follow_symlinks=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("docroot")
    parser.add_argument("release")
    parser.add_argument("outdir")
    options = parser.parse_args()
    store = Store(options.docroot, options.release)
    for pack, _ in store.packs:
        need(check_pack(store.at("packs", pack.hex())) == pack, "another pack")
    store.extract(options.outdir)
    print(store.tree.digest.hex())


if __name__ == "__main__":
    main()
