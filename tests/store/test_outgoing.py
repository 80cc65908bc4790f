"""Publishing to an origin elsewhere: all of it, again, in two at once, after something was lost, and killed anywhere."""

from __future__ import annotations

import tarfile

import pytest

from pacstore.documents import read_manifest
from pacstore.errors import NotFound, Refused, Unavailable
from pacstore.storage import ObjectKind
from pacstore.sweep.collection import collect
from pacstore.trust.ceremony import Keys
from pacstore.trust.keyring import KeyRing
from tests.store.outgoing import Here, Site
from tests.store.releases import NAME, NEXT, NOW, Origin, leftovers, make_tree, originals


@pytest.fixture
def origin(tmp_path):
    """An origin whose line Demo was begun, and has no release yet."""
    origin = Origin.make(tmp_path / "origin")
    origin.catalog.add_line("Demo", Keys((origin.keys.create("line-Demo"),)), origin.keys, now=NOW)
    return origin


@pytest.fixture
def line_keys(origin, tmp_path):
    """The key of the line alone, as its manager has it."""
    keys = tmp_path / "line"
    keys.mkdir(mode=0o700)
    for suffix in ("pem", "pub"):
        (keys / f"line-Demo.{suffix}").write_bytes((origin.keys.directory / f"line-Demo.{suffix}").read_bytes())
        (keys / f"line-Demo.{suffix}").chmod(0o600)
    return KeyRing(keys)


@pytest.fixture
def site(origin, line_keys, tmp_path):
    return Site(tmp_path, Here(origin, origin.keys), line_keys)


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


def test_a_directory_is_published_with_the_key_of_its_line_alone(site, origin, tree):
    done = site.publish(tree)
    assert (done.existed, done.waiting, done.rounds) == (False, False, 1)
    assert origin.assembled() == originals(tree)
    assert origin.check().damage == []
    assert done.bytes_sent >= done.bytes_stored > 0
    assert not site.work.exists()
    assert leftovers(origin.store) == []


@pytest.mark.slow
def test_it_is_the_same_release_as_where_the_store_is(site, origin, tree, tmp_path):
    there = site.publish(tree)
    here = Origin.make(tmp_path / "here").publish(tree)
    assert (there.tree_digest, there.manifest_digest) == (here.tree_digest, here.manifest_digest)
    assert (there.files, there.bytes_total, there.bytes_new) == (here.files, here.bytes_total, here.bytes_new)


@pytest.mark.slow
def test_only_what_is_missing_is_sent(site, origin, tree, tmp_path):
    site.publish(tree)
    packs = len(site.here.uploaded)
    done = site.publish(make_tree(tmp_path / "next", version="2"), NEXT)
    assert done.bytes_new < done.bytes_total / 3
    assert len(site.here.uploaded) < packs + 6
    assert origin.assembled(NEXT) == originals(tmp_path / "next")
    assert origin.assembled() == originals(tree)


@pytest.mark.slow
def test_an_archive_is_published_as_well_with_what_lies_between_its_files(site, origin, tree, tmp_path):
    with tarfile.open(tmp_path / "release.tar.gz", "w:gz") as tar:
        tar.add(tree, arcname=".")
    done = site.publish(tmp_path / "release.tar.gz")
    assert (done.original, done.original_new > 0) == ("release.tar.gz", True)
    assert read_manifest(origin.store.storage, origin.entry()).original.name == "release.tar.gz"
    assert origin.assembled() == originals(tree)
    assert origin.check().damage == []
    assert site.publish(tree).existed
    assert not site.work.exists()


def test_the_same_again_is_no_change_and_another_tree_is_refused(site, origin, tree, tmp_path):
    site.publish(tree)
    before, sent = origin.public(), len(site.here.uploaded)
    assert site.publish(tree).existed
    with pytest.raises(Refused, match="bound for ever"):
        site.publish(make_tree(tmp_path / "other", version="2"))
    assert (origin.public(), len(site.here.uploaded)) == (before, sent)


@pytest.mark.slow
def test_without_the_online_key_it_waits_and_another_can_wait_on_top(site, origin, line_keys, tree, tmp_path):
    site.here.ring = KeyRing(tmp_path / "none")
    assert site.publish(tree).waiting
    assert site.publish(tree).waiting  # again: no change
    assert site.publish(make_tree(tmp_path / "next", version="2"), NEXT).waiting
    assert origin.listed() == []
    origin.catalog.refresh(origin.keys, now=NOW)
    assert origin.listed() == [NAME, NEXT]
    assert origin.assembled(NEXT) == originals(tmp_path / "next")


@pytest.mark.slow
def test_with_all_keys_here_the_copy_commits_nothing_by_itself(site, origin, tree):
    site.keys = origin.keys
    assert not site.publish(tree).waiting
    assert origin.listed() == [NAME]


@pytest.mark.slow
def test_a_line_that_was_not_begun_or_has_no_key_here_is_refused_before_anything_is_read(site, origin, tree, tmp_path):
    with pytest.raises(Refused, match="no such line"):
        site.publish(tree, "Other-1.0-x")
    site.keys = KeyRing(tmp_path / "none")
    with pytest.raises(NotFound, match="no key of this line"):
        site.publish(tree)
    assert site.here.uploaded == []


def test_two_publishers_of_one_line_both_succeed(site, origin, line_keys, tree, tmp_path):
    other = Site(tmp_path / "second", Here(origin, origin.keys), line_keys)
    second = make_tree(tmp_path / "next", version="2")
    calls = []

    def intrude(step):
        if step == "commit" and not calls:
            calls.append(step)
            other.publish(second, NEXT)

    site.here.before = intrude
    assert not site.publish(tree).waiting
    assert origin.listed() == [NAME, NEXT]


@pytest.mark.slow
def test_of_two_trees_under_one_name_one_is_refused(site, origin, line_keys, tree, tmp_path):
    other = Site(tmp_path / "second", Here(origin, origin.keys), line_keys)
    calls = []

    def intrude(step):
        if step == "commit" and not calls:
            calls.append(step)
            other.publish(make_tree(tmp_path / "next", version="2"))

    site.here.before = intrude
    with pytest.raises(Refused, match="bound for ever"):
        site.publish(tree)
    assert origin.assembled() == originals(tmp_path / "next")


@pytest.mark.parametrize("at", [pytest.param("place", marks=pytest.mark.slow), "commit"])
def test_what_was_collected_meanwhile_is_sent_again(site, origin, tree, at):
    calls = []

    def lose(step):
        if step == at and not calls:
            calls.append(step)
            for _ in range(2):
                collect(origin.store, origin.store.ledger, now=NOW + 1e6, grace_seconds=0)
            assert list(origin.store.storage.digests(ObjectKind.PACK)) == []

    site.here.before = lose
    done = site.publish(tree)
    assert (done.rounds, origin.listed()) == (2, [NAME])
    assert origin.assembled() == originals(tree)


@pytest.mark.slow
def test_an_origin_that_loses_everything_all_the_time_is_told_of(site, origin, tree):
    def lose(step):
        if step == "place":
            for _ in range(2):
                collect(origin.store, origin.store.ledger, now=NOW + 1e6, grace_seconds=0)

    site.here.before = lose
    with pytest.raises(Unavailable, match="loses what was sent, 5 times"):
        site.publish(tree)
    assert origin.listed() == []


def test_interrupted_anywhere_it_goes_on_and_sends_no_pack_twice(origin, line_keys, tree, tmp_path):
    """At each step in turn; what was verified before is not packed or sent again."""
    here = Here(origin, origin.keys)
    site = Site(tmp_path, here, line_keys)
    interrupted = 0
    for at in range(1, 60):
        steps = []

        def stop(step, steps=steps, at=at):
            steps.append(step)
            if len(steps) == at:
                raise Unavailable("the line broke")

        here.before = stop
        try:
            site.publish(tree)
        except Unavailable:
            interrupted += 1
            continue
        break
    assert interrupted > 5
    packs = [digest for kind, digest in here.uploaded if kind is ObjectKind.PACK]
    assert len(packs) == len(set(packs))
    assert origin.assembled() == originals(tree)
    assert not site.work.exists()


@pytest.mark.slow
def test_two_commands_from_one_place_do_not_send_the_same_twice(site, tree, tmp_path):
    def again(step):
        if step == "upload":
            site.here.before = lambda _: None
            with pytest.raises(Unavailable, match="being published from here already"):
                site.publish(tree)

    site.here.before = again
    site.publish(tree)


def test_an_empty_directory_and_what_is_none_are_refused(site, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="is empty"):
        site.publish(tmp_path / "empty")
    with pytest.raises(Refused, match="neither a directory nor a file"):
        site.publish(tmp_path / "none")
