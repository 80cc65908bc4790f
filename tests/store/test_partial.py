"""Partial packs: nothing is visible before it is whole and verified, and no record is believed about what is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore import durable
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable
from pacstore.partial import PartialPacks
from pacstore.storage import ObjectKind
from pacstore.store import Store
from tests.store.packs import noise_pack
from tests.store.samples import BOUNDED

PACK = noise_pack(8, 20_000)
ALL = range(8)
FIRST_BYTE, LAST_BYTE = 0, len(PACK.data) - 1


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


@pytest.fixture
def packs(store):
    return PartialPacks(store.private, store.storage)


def partial_file(store):
    return store.private / "partial" / PACK.id.hex[:2] / PACK.id.hex


def public_file(store):
    return store.public / PACK.path


def fill(packs, numbers=ALL):
    """The pack, opened, with these frames."""
    partial = packs.begin(PACK.id, PACK.table)
    for number in numbers:
        partial.write(number, PACK.frame(number))
    return partial


def put_public(store):
    with store.storage.stage(ObjectKind.PACK) as staged:
        staged.write(PACK.data)
        staged.publish(PACK.id)


def spoil(path, offset, data=b"wrong"):
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_nothing_is_public_before_the_last_frame_is_verified_and_then_it_is_the_pack(store, packs):
    with closing(fill(packs, range(7))) as partial:
        with pytest.raises(Refused, match="lacks frames"):
            partial.publish()
        assert not public_file(store).exists()
        partial.write(7, PACK.frame(7))
        partial.publish()
        partial.publish()
    assert public_file(store).read_bytes() == PACK.data
    assert public_file(store).stat().st_mode & 0o777 == 0o444
    assert list(packs.digests()) == []
    with pytest.raises(NotFound):
        packs.open(PACK.id)


def test_wrong_bytes_never_come_into_a_pack(store, packs):
    with closing(fill(packs, [0])) as partial:
        for data in (PACK.frame(2), PACK.frame(1)[:-1], PACK.frame(1) + b"x", b""):
            with pytest.raises(Corrupt):
                partial.write(1, data)
        assert partial.missing(ALL) == list(range(1, 8))


def test_a_file_has_its_final_length_at_once_and_takes_no_room(store, packs):
    with closing(fill(packs, [])):
        assert partial_file(store).stat().st_size == len(PACK.data)
        assert packs.occupied(PACK.id) < len(PACK.data) / 2
        assert list(packs.digests()) == [PACK.id]


@pytest.mark.parametrize("there", [[], [3], [0, 1, 6, 7], list(ALL)])
def test_what_is_there_after_a_restart_is_found_by_hashing_it(packs, there):
    fill(packs, there).close()
    with closing(packs.open(PACK.id)) as partial:
        assert not any(partial.has(number) for number in ALL)
        assert all(partial.needs_look(number) for number in there)
        assert partial.missing(ALL) == [number for number in ALL if number not in there]
        assert [number for number in ALL if partial.has(number)] == there


def test_a_frame_that_changed_on_disk_is_not_used(store, packs):
    fill(packs).close()
    spoil(partial_file(store), PACK.frames.begin(4) + 100)
    with closing(packs.open(PACK.id)) as partial:
        assert partial.missing(ALL) == [4]
        assert not partial.is_whole
        partial.write(4, PACK.frame(4))
        partial.publish()
    assert public_file(store).read_bytes() == PACK.data


@pytest.mark.parametrize("offset", [0, LAST_BYTE - 20, LAST_BYTE - 4, PACK.frames.begin(8) + 30])
def test_with_a_damaged_table_it_is_not_opened_and_with_the_right_one_no_frame_is_lost(store, packs, offset):
    fill(packs, [1, 2]).close()
    spoil(partial_file(store), offset, b"\0\0\0")
    with pytest.raises(Corrupt):
        packs.open(PACK.id)
    with closing(packs.begin(PACK.id, PACK.table)) as partial:
        assert partial.missing(ALL) == [0, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("length", [0, 5, 30_000, len(PACK.data) - 1, len(PACK.data) + 5])
def test_a_file_of_another_length_as_after_power_loss_is_put_right(store, packs, length):
    fill(packs, [0]).close()
    os.truncate(partial_file(store), length)
    with pytest.raises(Corrupt):
        packs.open(PACK.id)
    with closing(packs.begin(PACK.id, PACK.table)) as partial:
        assert partial.missing(ALL) == (list(range(1, 8)) if length >= 30_000 else list(ALL))
        assert partial_file(store).stat().st_size == len(PACK.data)


def test_another_packs_table_is_refused(packs):
    with pytest.raises(Corrupt, match="not the table"):
        packs.begin(PACK.id, noise_pack(2).table)
    assert list(packs.digests()) == []


@BOUNDED
@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=30))
def test_the_frames_that_are_here_are_those_that_were_written(packs, steps):
    """Any order, again and again, with the process ending in between."""
    packs.drop(PACK.id)
    written = set()
    partial = packs.begin(PACK.id, PACK.table)
    for number, again in steps:
        if again:
            partial.close()
            partial = packs.open(PACK.id)
        partial.write(number, PACK.frame(number))
        written.add(number)
    assert set(ALL) - set(partial.missing(ALL)) == written
    assert partial.is_whole == (len(written) == 8)
    partial.close()


@BOUNDED
@given(st.integers(0, len(PACK.data) + 10), st.integers(0, len(PACK.data)))
def test_frames_cover_what_is_asked_of_a_pack_and_no_more(offset, length):
    frames = PACK.frames
    covering = frames.covering(offset, length)
    inside = {
        number
        for number in ALL
        if frames.begin(number) < offset + length and offset < frames.begin(number + 1) and length
    }
    assert set(covering) == inside


def test_two_processes_that_fill_one_pack_do_not_hurt_each_other(store, packs):
    one, other = fill(packs, range(5)), PartialPacks(store.private, store.storage).open(PACK.id)
    with closing(one), closing(other):
        other.write(7, PACK.frame(7))
        for number in (5, 6, 7):
            one.write(number, PACK.frame(number))
        one.publish()
        assert other.missing(ALL) == [5, 6]
        other.write(5, PACK.frame(5))
        other.write(6, PACK.frame(6))
        other.publish()
    assert public_file(store).read_bytes() == PACK.data
    assert public_file(store).stat().st_nlink == 1


def test_what_took_the_place_of_a_pack_that_is_being_filled_is_never_published_for_it(store, packs):
    with closing(fill(packs)) as partial:
        packs.drop(PACK.id)
        with closing(fill(packs, [2])) as later:
            with pytest.raises(Unavailable, match="removed"):
                partial.publish()
            assert not public_file(store).exists()
            assert later.missing(ALL) == [0, 1, 3, 4, 5, 6, 7]


def test_a_damaged_pack_leaves_the_docroot_and_keeps_its_good_frames(store, packs):
    put_public(store)
    spoil(public_file(store), PACK.frames.begin(3))
    packs.demote(PACK.id)
    packs.demote(PACK.id)
    assert not public_file(store).exists()
    with closing(packs.open(PACK.id)) as partial:
        assert partial.missing(ALL) == [3]
        partial.write(3, PACK.frame(3))
        partial.publish()
    assert public_file(store).read_bytes() == PACK.data


def test_a_damaged_pack_beside_a_partial_one_gives_it_its_good_frames(store, packs):
    fill(packs, [0]).close()
    put_public(store)
    spoil(public_file(store), PACK.frames.begin(3))
    packs.demote(PACK.id)
    assert not public_file(store).exists()
    with closing(packs.open(PACK.id)) as partial:
        assert partial.missing(ALL) == [3]


def test_a_damaged_pack_beside_an_unreadable_partial_one_takes_its_place(store, packs):
    fill(packs, [0]).close()
    spoil(partial_file(store), LAST_BYTE - 4)
    put_public(store)
    packs.demote(PACK.id)
    with closing(packs.open(PACK.id)) as partial:
        assert partial.missing(ALL) == []


def test_a_damaged_pack_that_cannot_be_read_leaves_the_docroot_all_the_same(store, packs, monkeypatch):
    fill(packs, [0]).close()
    put_public(store)
    pread = os.pread

    def failing(descriptor, length, offset):
        if offset == PACK.frames.begin(3) and os.path.samestat(os.fstat(descriptor), public_file(store).stat()):
            raise OSError(5, "Input/output error")
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", failing)
    packs.demote(PACK.id)
    monkeypatch.undo()
    assert not public_file(store).exists()
    with closing(packs.open(PACK.id)) as partial:
        assert partial.missing(ALL) == [3]


def test_those_who_read_a_pack_at_once_do_not_move_each_other(packs):
    """Where sendfile does not work, asyncio seeks and reads."""
    with closing(fill(packs)) as partial, partial.open_file() as one, partial.open_file() as other:
        one.seek(PACK.frames.begin(2))
        other.seek(PACK.frames.begin(5))
        assert one.read(20_000) == PACK.frame(2)
        packs.drop(PACK.id)
        with partial.open_file() as third:
            assert third.read() == PACK.data


def test_withdrawing_is_finished_by_whoever_repeats_it(store, packs):
    put_public(store)
    partial_file(store).parent.mkdir(parents=True)
    os.link(public_file(store), partial_file(store))
    packs.demote(PACK.id)
    assert not public_file(store).exists()
    assert partial_file(store).stat().st_nlink == 1


@pytest.mark.parametrize("beside", [[], [0]])
def test_a_pack_that_becomes_whole_while_it_is_withdrawn_stays(store, packs, monkeypatch, beside):
    """Whoever fills packs finds it as soon as it is a partial one, and may be done with it before the withdrawal is."""
    if beside:
        fill(packs, beside).close()
    put_public(store)
    spoil(public_file(store), PACK.frames.begin(3))
    inner, filled = durable.sync_directory, []

    def fill_meanwhile(path):
        if not filled:
            filled.append(path)
            with closing(packs.open(PACK.id)) as partial:
                for number in partial.missing(ALL):
                    partial.write(number, PACK.frame(number))
                partial.publish()
        inner(path)

    monkeypatch.setattr("pacstore.partial.sync_directory", fill_meanwhile)
    packs.demote(PACK.id)
    assert filled
    assert public_file(store).read_bytes() == PACK.data


def test_there_must_be_a_pack_to_withdraw(packs):
    with pytest.raises(NotFound):
        packs.demote(PACK.id)


def test_a_whole_pack_takes_the_place_of_a_damaged_one(store, packs):
    with closing(fill(packs)) as partial:
        put_public(store)
        spoil(public_file(store), PACK.frames.begin(3))
        partial.publish()
    assert public_file(store).read_bytes() == PACK.data
    assert os.listdir(partial_file(store).parent) == []


def test_tidying_removes_second_names_and_empty_files_and_nothing_else(store, packs):
    other = noise_pack(2, seed="other")
    packs.begin(other.id, other.table).close()
    fill(packs).close()
    put_public(store)
    empty = Digest.of(b"empty")
    (store.private / "partial" / empty.hex[:2]).mkdir(exist_ok=True)
    (store.private / "partial" / empty.hex[:2] / empty.hex).write_bytes(b"")
    second = partial_file(store).with_name(f"{PACK.id.hex}.{'0' * 16}")
    second.write_bytes(b"")
    packs.tidy()
    assert list(packs.digests()) == [other.id]
    assert not second.exists()


def test_a_sync_that_failed_is_never_taken_for_done(store, packs, monkeypatch):
    """After a failed fsync the kernel believes the pages to be clean: the next one would succeed, and the bytes be lost."""

    def failing(descriptor):
        raise OSError(5, "Input/output error")

    with closing(fill(packs)) as partial:
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(Unavailable, match="input/output"):
            partial.publish()
        monkeypatch.undo()
    assert not public_file(store).exists()
    assert list(packs.digests()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from pacstore.partial import PartialPacks
from pacstore.store import Store
from tests.store.packs import noise_pack

pack, store = noise_pack(8, 20_000), Store.open(Path(sys.argv[1]), writable=True)
at, calls = int(sys.argv[2]), 0

def trace(name, inner):
    def call(*words, **more):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*words, **more)
    setattr(os, name, call)

for name in ("open", "ftruncate", "pwrite", "fchmod", "fsync", "link", "unlink", "close"):
    trace(name, getattr(os, name))
partial = PartialPacks(store.private, store.storage).begin(pack.id, pack.table)
for number in partial.missing(range(8)):
    partial.write(number, pack.frame(number))
partial.publish()
partial.close()
"""


@pytest.mark.slow
def test_killed_between_any_two_steps_it_is_finished_by_the_next_one(store, packs):
    at, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        at += 1
        argv = [sys.executable, "-c", KILLED, str(store.path), str(at)]
        code = subprocess.run(
            argv, check=False, cwd=os.getcwd(), env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
        ).returncode
        if public_file(store).exists():
            assert public_file(store).read_bytes() == PACK.data
    assert code == 0
    assert at > 5
    packs.tidy()
    assert list(packs.digests()) == []
    assert public_file(store).read_bytes() == PACK.data
