"""Where changes wait: nothing that was acknowledged is lost there, whoever writes at the same time."""

import pytest

from pacstore.backends.memory import MemoryStorage
from pacstore.errors import Corrupt, NewerFormat, NotFound, TooLarge, Unavailable
from pacstore.storage import DocumentKind
from pacstore.trust.change import CHANGE_BYTES, Change
from pacstore.trust.pending import Pending, read_pending, replace_pending
from tests.store.trust_world import Crash, HookedStorage, Office, crash

ONE, TWO, THREE = (f"Atlas-{n}-x86" for n in (1, 2, 3))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Office(tmp_path_factory.mktemp("office")).begin(ONE)


@pytest.fixture(scope="module")
def changes(base):
    """Two changes that can be told apart."""
    found = []
    for name in (TWO, THREE):
        twin = base.twin()
        twin.publish(name)
        found.append(read_pending(twin.drafts)[1])
    return found


def names(drafts) -> list[str]:
    return list(drafts.names(DocumentKind.CATALOG))


def test_the_newest_counts_and_the_one_before_stays(changes):
    drafts = MemoryStorage()
    assert read_pending(drafts) == (0, Change())
    for number, change in enumerate([*changes, Change(), changes[0]]):
        assert replace_pending(drafts, number, change)
        found = read_pending(drafts)
        assert (found[0], found[1].encode()) == (number + 1, change.encode())
    assert names(drafts) == ["3.change.json", "4.change.json"]


def test_of_two_who_start_from_the_same_one_is_refused(changes):
    mine, theirs = changes
    for number in range(4):
        drafts = MemoryStorage()
        for earlier in range(number):
            replace_pending(drafts, earlier, Change())
        assert replace_pending(drafts, number, theirs)
        assert not replace_pending(drafts, number, mine)
        assert read_pending(drafts)[1].encode() == theirs.encode()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_who_is_several_steps_behind_is_refused(changes, steps):
    mine, theirs = changes
    drafts = MemoryStorage()
    for number in range(steps):
        assert replace_pending(drafts, number, theirs)
    assert not replace_pending(drafts, 0, mine)
    assert read_pending(drafts)[0] == steps
    assert read_pending(drafts)[1].encode() == theirs.encode()


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_write_leaves_the_old_or_the_new_change(changes, after):
    old, new = changes
    for n in range(10):
        drafts = MemoryStorage()
        for number in range(3):
            replace_pending(drafts, number, old)
        hooked = HookedStorage(drafts, n, crash, after=after)
        try:
            assert replace_pending(hooked, 3, new)
        except Crash:
            number, found = read_pending(drafts)
            assert found.encode() == (new.encode() if number == 4 else old.encode())
            assert replace_pending(drafts, number, new)
            assert len(names(drafts)) == 2
            continue
        assert n == hooked.calls == 2
        return
    raise AssertionError


@pytest.mark.parametrize("after", [False, True])
def test_another_who_writes_at_any_moment_loses_nothing(changes, after):
    mine, theirs = changes
    for n in range(10):
        drafts = MemoryStorage()
        replace_pending(drafts, 0, Change())
        done = []
        hooked = HookedStorage(
            drafts,
            n,
            lambda drafts=drafts, done=done: done.append(replace_pending(drafts, read_pending(drafts)[0], theirs)),
            after=after,
        )
        ours = replace_pending(hooked, 1, mine)
        if hooked.calls <= n:
            return
        assert done == [True]
        # Theirs was made of mine, or mine was refused: then it is made of theirs.
        assert read_pending(drafts)[1].encode() == theirs.encode()
        assert ours or replace_pending(drafts, read_pending(drafts)[0], mine)
    raise AssertionError


def test_what_cannot_be_read_says_what_to_do(changes):
    drafts = MemoryStorage()
    replace_pending(drafts, 0, changes[0])
    whole = drafts.files["catalog/1.change.json"]
    drafts.files["catalog/1.change.json"] = whole[:-20]
    with pytest.raises(Corrupt) as caught:
        read_pending(drafts)
    assert caught.value.place == "private/catalog/1.change.json"
    assert "remove it" in caught.value.hint
    drafts.files["catalog/1.change.json"] = whole.replace(b'"format":1', b'"format":2')
    with pytest.raises(NewerFormat):
        read_pending(drafts)


def test_a_storage_that_changes_under_the_reader_all_the_time_is_unavailable():
    class Restless(MemoryStorage):
        def get(self, kind, name, *, limit):
            raise NotFound("is gone")

    drafts = Restless()
    drafts.files["catalog/1.change.json"] = b""
    with pytest.raises(Unavailable, match="replaced by others all the time"):
        read_pending(drafts)


def test_a_store_without_a_place_for_drafts_has_none_waiting():
    class Bare(MemoryStorage):
        def names(self, kind):
            raise NotFound("there is no such directory")

    assert read_pending(Bare()) == (0, Change())
    assert not Pending(None).change


def test_more_than_can_be_read_again_is_refused_before_it_is_written():
    class Huge(Change):
        def encode(self) -> bytes:
            return bytes(CHANGE_BYTES + 1)

    drafts = MemoryStorage()
    with pytest.raises(TooLarge, match="what waits would take") as caught:
        replace_pending(drafts, 0, Huge())
    assert "pacball trust drop" in caught.value.hint
    assert drafts.files == {}


def test_a_large_change_is_a_taken_name_like_any_other(changes):
    drafts = MemoryStorage()
    drafts.files["catalog/1.change.json"] = b" " * (17 << 20)
    assert not replace_pending(drafts, 0, changes[0])
