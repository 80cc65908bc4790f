"""Exports and imports between stores in one process, and volumes that somebody has forged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from pacstore.directory_source import DirectorySource
from pacstore.pacball.members import END
from pacstore.release import Release
from pacstore.store import Store
from pacstore.volumes.contents import NAME, Contents
from pacstore.volumes.exporting import Exported, plan_export, write_export
from pacstore.volumes.importing import Imported, take_in
from pacstore.volumes.judging import first_root, judge, open_target
from pacstore.volumes.layout import Place, places_of, volume_bytes
from pacstore.volumes.volume import Volume
from tests.store.releases import NOW, Notes

NAMES = ("Demo-1.0-x86_64", "Demo-1.1-x86_64", "Demo-1.2-x86_64")
SPLIT = 900_000


def root_of(store: Path) -> bytes:
    return (store / "public/catalog/1.root.json").read_bytes()


def carry_out(
    store: Path, output: Path, names: Sequence[str], *, since: Sequence[str] = (), split: int | None = None,
    progress: Notes | None = None,
) -> Exported:  # fmt: skip
    """Export releases of `store`."""
    source = DirectorySource(store)
    wanted, held = ([Release.parse(name) for name in some] for some in (names, since))
    plan = plan_export(source, source, wanted, held, root=root_of(store), split_bytes=split, clock=lambda: NOW)
    return write_export(plan, source, output, is_split=split is not None, progress=progress or Notes())


def carry_in(
    files: Sequence[Path], to: Path, *, root: bytes | None = None, progress: Notes | None = None, now: float = NOW
) -> Imported:
    """Import volumes into the store `to`; `root` is trusted where that has none."""
    with ExitStack() as stack:
        volumes = [stack.enter_context(closing(Volume.open(path))) for path in files]
        store = open_target(to)
        trusted = (first_root(store) if store is not None else None) or root
        assert trusted is not None
        told = progress or Notes()
        judged = judge(volumes, store, root=trusted, clock=lambda: now, progress=told)
        return take_in(volumes, judged, to, root=trusted, state_dir=None, clock=lambda: now, progress=told)


def state_of(store: Path) -> dict[str, bytes]:
    """Every public file of a store; nothing, if there is none."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted((store / "public").rglob("*"))
        if path.is_file()
    }


def members_of(path: Path) -> dict[str, bytes]:
    """The members of a volume, by path, its contents apart."""
    with closing(Volume.open(path)) as volume:
        return {place.path: volume.read(place.path, limit=place.length) for place in volume.places[1:]}


def forge(path: Path, contents: Contents, members: dict[str, bytes], *, number: int = 1) -> Path:
    """A volume that is as it says, whatever that is; members that are not given are zeros."""
    data = bytearray(volume_bytes(places_of(contents, number)))
    for place in places_of(contents, number):
        put(data, place, contents.encode(number) if place.path == NAME else members.get(place.path, b""))
    assert data.endswith(END)
    path.write_bytes(data)
    return path


def put(data: bytearray, place: Place, content: bytes) -> None:
    data[place.at : place.begin] = place.header
    content = content[: place.length]
    data[place.begin : place.begin + len(content)] = content


def held_in(store: Path) -> set[str]:
    """The releases that a store says to hold."""
    return {path.name for path in (store / "public/holdings").iterdir()}


def complete_in(store: Path) -> set[str]:
    """The releases that are complete by the ledger."""
    from pacstore.ledger import releases  # noqa: PLC0415

    with Store.open(store, writable=False) as opened, opened.ledger.reading() as connection:
        return {str(row.release) for row in releases.every(connection).values() if row.state == "complete"}
