from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress

import pytest
import sqlalchemy as sa

from pacstore.digest import Digest
from pacstore.errors import Corrupt, NewerFormat, NotFound, Refused, Unavailable
from pacstore.ledger import Ledger, orders, packs, pins, releases, subscriptions
from pacstore.ledger.packs import PACKS, KeptFor, PackState
from pacstore.ledger.pins import Pin
from pacstore.ledger.releases import RELEASES, ReleaseState
from pacstore.release import Release
from pacstore.subscription import Subscription

ONE, TWO, THREE = (Digest.of(name) for name in (b"1", b"2", b"3"))
OLD, NEW = Release.parse("Demo-1-x"), Release.parse("Demo-2-x")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with closing(Ledger(path)) as ledger:
        yield ledger


def hold(ledger, *held, now=5.0, state=PackState.WHOLE):
    with ledger.writing() as connection:
        for pack in held:
            packs.record(connection, pack, length=100, held_bytes=100, state=state, now=now)


def complete(ledger, release, *needed):
    with ledger.writing() as connection:
        releases.want(connection, release, now=1.0)
        releases.need(connection, release, dict.fromkeys(needed, 100), only=True)
        releases.set_complete(connection, release, placement_number=1, now=2.0)


def state_of(ledger, release):
    with ledger.reading() as connection:
        return releases.find(connection, release)


def assert_totals_are_true(ledger):
    """The sums that triggers keep are those of the rows."""
    with ledger.reading() as connection:
        for table, by, kept in (
            (PACKS, PACKS.c.kept_for, packs.pack_totals(connection)),
            (RELEASES, RELEASES.c.state, releases.release_totals(connection)),
        ):
            query = sa.select(by, sa.func.count(), sa.func.sum(table.c.held_bytes)).group_by(by)
            counted = {name: (items, size) for name, items, size in connection.execute(query)}
            assert {str(name): tuple(total) for name, total in kept.items() if total.items} == counted


def test_what_was_written_is_there_again(path):
    with closing(Ledger(path)) as ledger:
        hold(ledger, ONE, now=7.5)
        complete(ledger, OLD, ONE)
    with closing(Ledger(path)) as ledger, ledger.reading() as connection:
        row = packs.find(connection, ONE)
        assert row == packs.PackRow(ONE, 100, 100, PackState.WHOLE, KeptFor.SUBSCRIBED, 7.5, None)
        row = releases.find(connection, OLD)
        assert (row.state, row.placement_number, row.total_bytes, row.held_bytes) == (
            ReleaseState.COMPLETE,
            1,
            100,
            100,
        )
        assert packs.find(connection, TWO) is releases.find(connection, NEW) is None


def test_for_whom_a_pack_is_kept_follows_from_the_releases_that_need_it(ledger):
    hold(ledger, ONE, TWO)
    complete(ledger, OLD, ONE, TWO)
    complete(ledger, NEW, TWO, THREE)
    hold(ledger, THREE)

    def kept():
        assert_totals_are_true(ledger)
        with ledger.reading() as connection:
            return [packs.find(connection, pack).kept_for for pack in (ONE, TWO, THREE)]

    assert kept() == [KeptFor.SUBSCRIBED] * 3
    with ledger.writing() as connection:
        releases.forget(connection, OLD)
    assert kept() == [KeptFor.PULLED, KeptFor.SUBSCRIBED, KeptFor.SUBSCRIBED]
    with ledger.writing() as connection:
        releases.need(connection, NEW, {THREE: 100}, only=True)
    assert kept() == [KeptFor.PULLED, KeptFor.PULLED, KeptFor.SUBSCRIBED]
    with ledger.reading() as connection:
        assert [row.pack for row in packs.least_used(connection, limit=9)] == sorted([ONE, TWO])


@pytest.mark.parametrize("how", ["partial", "damaged", "gone"])
def test_complete_is_cleared_with_the_pack_in_one_transaction(ledger, how):
    hold(ledger, ONE, TWO, THREE)
    complete(ledger, OLD, ONE, TWO)
    complete(ledger, NEW, TWO, THREE)
    with suppress(ZeroDivisionError), ledger.writing() as connection:
        packs.remove(connection, [ONE])
        raise ZeroDivisionError
    assert state_of(ledger, OLD).state is ReleaseState.COMPLETE
    with ledger.writing() as connection:
        if how == "partial":
            packs.record(connection, ONE, length=100, held_bytes=60, state=PackState.PARTIAL, now=9.0)
        elif how == "damaged":
            packs.set_state(connection, ONE, PackState.DAMAGED)
        else:
            packs.remove(connection, [ONE])
    row = state_of(ledger, OLD)
    assert (row.state, row.reason, row.next_at) == (ReleaseState.PARTIAL, releases.LOST, 0.0)
    assert state_of(ledger, NEW).state is ReleaseState.COMPLETE
    with ledger.reading() as connection:
        assert releases.missing(connection, OLD) == {ONE}
        assert releases.needing(connection, [ONE, THREE]) == {OLD, NEW}
    assert_totals_are_true(ledger)


def test_using_a_whole_pack_clears_nothing(ledger):
    hold(ledger, ONE)
    complete(ledger, OLD, ONE)
    hold(ledger, ONE, now=50.0)
    with ledger.writing() as connection:
        packs.touch(connection, {ONE: 70.0, TWO: 80.0})
        packs.touch(connection, {ONE: 60.0})
        assert packs.find(connection, ONE).last_used == 70.0
        assert packs.find(connection, TWO) is None
    assert state_of(ledger, OLD).state is ReleaseState.COMPLETE


def test_a_damaged_pack_is_not_adopted(ledger):
    hold(ledger, ONE, state=PackState.DAMAGED)
    hold(ledger, TWO, state=PackState.PARTIAL)
    with ledger.writing() as connection:
        packs.adopt(connection, {ONE: 100, TWO: 100, THREE: 100}, now=9.0)
        states = [row.state for row in (packs.find(connection, p) for p in (ONE, TWO, THREE))]
    assert states == [PackState.DAMAGED, PackState.WHOLE, PackState.WHOLE]
    assert_totals_are_true(ledger)


def test_failures_are_counted_and_forgotten_when_it_is_complete(ledger):
    with ledger.writing() as connection:
        releases.want(connection, OLD, now=1.0)
        for attempt in (1, 2):
            releases.retry(connection, OLD)
            assert releases.find(connection, OLD).state is ReleaseState.PARTIAL
            releases.fail(connection, OLD, reason="no route", next_at=10.0 * attempt)
        row = releases.find(connection, OLD)
        assert (row.state, row.attempts, row.reason, row.next_at) == (ReleaseState.FAILED, 2, "no route", 20.0)
        assert releases.behind_since(connection) == row.since == 1.0
        releases.set_complete(connection, OLD, placement_number=3, now=4.0)
        row = releases.find(connection, OLD)
        assert (row.state, row.attempts, row.reason, row.since) == (ReleaseState.COMPLETE, 0, "", 4.0)
        # A newer placement that does not come leaves what is held in place.
        releases.fail(connection, OLD, reason="no route", next_at=99.0)
        row = releases.find(connection, OLD)
        assert (row.state, row.attempts, row.since) == (ReleaseState.COMPLETE, 1, 4.0)
        assert releases.behind_since(connection) is None


def test_what_leaves_may_stay_after_all(ledger):
    complete(ledger, OLD)
    with ledger.writing() as connection:
        releases.let_go(connection, OLD, at=100.0)
        releases.let_go(connection, OLD, at=200.0)
        assert releases.find(connection, OLD).leaves_at == 100.0
        releases.want(connection, OLD, now=3.0)
        row = releases.find(connection, OLD)
        assert (row.leaves_at, row.state) == (None, ReleaseState.COMPLETE)
        releases.forget(connection, OLD)
        releases.forget(connection, OLD)
        assert releases.every(connection) == {}


def test_releases_are_shown_page_by_page(ledger):
    with ledger.writing() as connection:
        for number in range(25):
            releases.want(connection, Release.parse(f"Demo-{number:02}-x"), now=1.0)
        releases.fail(connection, Release.parse("Demo-07-x"), reason="r", next_at=2.0)
        found, after = [], ""
        while page := releases.page(connection, after=after, limit=10):
            assert len(page) <= 10
            found += [str(row.release) for row in page]
            after = found[-1]
        assert found == [f"Demo-{number:02}-x" for number in range(25)]
        failed = releases.page(connection, limit=10, state=ReleaseState.FAILED)
        assert [str(row.release) for row in failed] == ["Demo-07-x"]


def test_rows_of_packs_come_in_batches(ledger):
    ids = sorted(Digest.of(str(number).encode()) for number in range(1100))
    with ledger.writing() as connection:
        packs.adopt(connection, dict.fromkeys(ids, 1), now=1.0)
        assert [row.pack for row in packs.every(connection)] == ids
        assert packs.pack_totals(connection)[KeptFor.PULLED] == (1100, 1100)
        packs.remove(connection, ids[:1000])
        assert packs.pack_totals(connection)[KeptFor.PULLED] == (100, 100)


def test_subscriptions_are_kept(ledger):
    with ledger.writing() as connection:
        subscriptions.add(connection, Subscription("Demo-*", 3), now=1.0)
        subscriptions.add(connection, Subscription("Atlas*", None), now=1.0)
        subscriptions.add(connection, Subscription("Demo-*", 4), now=2.0)
        assert subscriptions.listed(connection) == (Subscription("Atlas*"), Subscription("Demo-*", 4))
        assert subscriptions.remove(connection, "Demo-*")
        assert not subscriptions.remove(connection, "Demo-*")
        assert subscriptions.listed(connection) == (Subscription("Atlas*"),)


def test_a_table_that_is_missing_is_made(path):
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE subscriptions")
    with closing(Ledger(path)) as ledger, ledger.reading() as connection:
        assert subscriptions.listed(connection) == ()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_a_damaged_ledger_says_what_to_do(path, content):
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=r"the ledger is damaged.*pacball serve, which puts it aside"):
        Ledger(path)


def test_a_new_ledger_begins_with_what_people_had_said(path):
    pin = Pin(ONE.hex, "rucio", "dataset 7", until=9e9, made_at=3.5)
    with closing(Ledger(path)) as ledger:
        with orders.changing(ledger) as connection:
            subscriptions.add(connection, Subscription("Atlas*", 3), now=1.0)
            subscriptions.add(connection, Subscription("Demo-*"), now=2.0)
            pins.add(connection, pin)
        hold(ledger, ONE)
    assert orders.path_beside(path).stat().st_mode & 0o777 == 0o644, "root's commands keep no daemon from reading it"
    path.unlink()
    with closing(Ledger(path)) as ledger, ledger.reading() as connection:
        assert subscriptions.listed(connection) == (Subscription("Atlas*", 3), Subscription("Demo-*"))
        assert pins.listed(connection, now=5.0) == [pin]
        assert packs.find(connection, ONE) is None


def test_what_is_taken_back_is_not_said_again(path):
    with closing(Ledger(path)) as ledger:
        for change in (subscriptions.add, lambda connection, _, now: subscriptions.remove(connection, "Demo-*")):
            with orders.changing(ledger) as connection:
                change(connection, Subscription("Demo-*"), now=1.0)
        with suppress(KeyError), orders.changing(ledger) as connection:
            subscriptions.add(connection, Subscription("Zebra-*"), now=1.0)
            raise KeyError
    path.unlink()
    with closing(Ledger(path)) as ledger, ledger.reading() as connection:
        assert subscriptions.listed(connection) == ()


def test_orders_that_a_crash_left_behind_are_put_right(path):
    with closing(Ledger(path)) as ledger:
        with ledger.writing() as connection:
            subscriptions.add(connection, Subscription("Demo-*"), now=1.0)
        orders.save(ledger)
        with ledger.reading() as connection:
            assert orders.path_beside(path).read_bytes() == orders.encode(connection) != b""


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b'{"format":1}',
        b'{"format":1,"pins":[],"subscriptions":[{"pattern":"a b","keep":null,"made_at":1}]}',
        b'{"format":1,"pins":[],"subscriptions":[{"pattern":"Demo-*","keep":null,"made_at":"x"}]}',
        b'{"format":1,"pins":[7],"subscriptions":[]}',
        b'{"format":2,"pins":[],"subscriptions":[]}',
    ],
)
def test_orders_that_cannot_be_read_are_no_ledger_without_any(path, data):
    orders.path_beside(path).write_bytes(data)
    with pytest.raises((Corrupt, NewerFormat), match=r"orders\.json"):
        Ledger(path)
    assert not path.exists()


def test_a_newer_ledger_is_left_alone(path):
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(NewerFormat, match=r"has version 99.*install a newer pacball"):
        Ledger(path)
    assert path.read_bytes() == before


def test_who_may_only_read_can_read(path):
    with closing(Ledger(path)) as ledger:
        complete(ledger, OLD)
    with closing(Ledger(path, read_only=True)) as ledger:
        assert state_of(ledger, OLD).state is ReleaseState.COMPLETE
        with pytest.raises(Unavailable, match="readonly"):
            complete(ledger, NEW)
    path.unlink()
    with pytest.raises(Corrupt, match="missing"):
        Ledger(path, read_only=True)


def test_several_threads_write_without_losing_anything(path):
    with closing(Ledger(path)) as ledger:

        def work(start):
            for number in range(start, start + 20):
                hold(ledger, Digest.of(str(number).encode()))

        threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 80, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        with ledger.reading() as connection:
            assert packs.pack_totals(connection)[KeptFor.PULLED] == (80, 8000)
        assert_totals_are_true(ledger)


WRITER = """
import sys
from pathlib import Path
from pacstore.digest import Digest
from pacstore.ledger import Ledger, packs, releases
from pacstore.ledger.packs import PackState
from pacstore.release import Release

ledger, name = Ledger(Path(sys.argv[1])), sys.argv[2]
release = Release.parse(f"Demo-{name}-x")
for number in range(10_000):
    pack = Digest.of(f"{name} {number}".encode())
    with ledger.writing() as connection:
        packs.record(connection, pack, length=7, held_bytes=7, state=PackState.WHOLE, now=float(number))
        releases.want(connection, release, now=1.0)
        releases.need(connection, release, {pack: 7})
        releases.hold_bytes(connection, release, 7 * (number + 1))
    print(pack, flush=True)
"""


def test_what_several_processes_acknowledged_survives_their_being_killed(path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True, env=environment) for name in ("a", "b")
    ]
    said = []
    for writer in writers:
        said += [writer.stdout.readline().strip() for _ in range(15)]
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
    for writer in writers:
        said += [line.strip() for line in writer.communicate()[0].splitlines() if len(line.strip()) == 64]
    with closing(Ledger(path)) as ledger, ledger.reading() as connection:
        found = {row.pack.hex for row in packs.every(connection)}
        assert len(said) >= 30
        assert set(said) <= found
        for row in releases.every(connection).values():
            # What belongs together was written together.
            assert row.held_bytes == 7 * len(releases.needed(connection, row.release))
    with closing(Ledger(path)) as ledger:
        ledger.check()
        assert_totals_are_true(ledger)


def test_a_writer_waits_for_another_before_it_reads(path):
    """A transaction that reads first and writes later would fail at once, without waiting, where another has written."""
    with closing(Ledger(path)) as one, closing(Ledger(path)) as two:
        began, done = threading.Event(), []

        def wait():
            began.set()
            with two.writing() as connection:
                done.append(packs.find(connection, ONE))

        with one.writing() as connection:
            thread = threading.Thread(target=wait)
            thread.start()
            assert began.wait(60)
            packs.record(connection, ONE, length=1, held_bytes=1, state=PackState.WHOLE, now=1.0)
            assert done == []
        thread.join(60)
        assert done[0].pack == ONE


def test_a_ledger_in_a_place_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="none"):
        Ledger(tmp_path / "none" / "ledger.sqlite")


def test_only_known_states_are_written(ledger):
    with pytest.raises(Corrupt, match="constraint failed"), ledger.writing() as connection:
        packs.record(connection, ONE, length=1, held_bytes=1, state="odd", now=1.0)


@pytest.mark.parametrize("pattern", ["Demo-*", "*", "Demo-[12]*-x", "Demo-?.0-x_86", "Demo-[!a]-x", "Demo-1-x"])
def test_patterns_of_releases(pattern):
    assert str(Subscription(pattern)) == pattern
    assert str(Subscription(pattern, 3)) == f"{pattern}, the newest 3"


@pytest.mark.parametrize(
    "pattern",
    ["", "Demo", "Demo-[12", "Demo-1]", "a/b*", "a b*", "*\n", "Grüße-*", "!x-*", "Demo-[]*", "x" * 201, 5, None],
)
def test_what_is_no_pattern_is_refused_with_a_hint(pattern):
    with pytest.raises(Refused, match=r"for example 'AtlasOffline-\*-x86_64-\*'"):
        Subscription(pattern)


@pytest.mark.parametrize("keep", [0, -1, 1_000_001, True, "3", 1.5])
def test_numbers_to_keep(keep):
    with pytest.raises(Refused, match="leave it out to keep all"):
        Subscription("Demo-*", keep)
