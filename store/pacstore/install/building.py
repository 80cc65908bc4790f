"""Building: fills a staging tree with a release, makes it durable, and gives it its name."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from pacstore.declaration import FILE, Declaration, declares
from pacstore.errors import ActionFailed, NotFound, PacballError, Refused
from pacstore.install.actions.acting import Actions, Ran, read_declaration
from pacstore.install.actions.cleansing import cleanse_ended
from pacstore.install.actions.generated import Generated, place_record, settle, stage
from pacstore.install.crew import Crew
from pacstore.install.documents import Documents, Refresh, fetch_all, fetch_placement, refreshed
from pacstore.install.downloading import Downloading
from pacstore.install.options import InstallOptions, Share
from pacstore.install.plan import Plan, check_space, make_plan
from pacstore.install.root.layout import PRIVATE, Root
from pacstore.install.root.living import signs_of_life
from pacstore.install.root.staging import TREE, Attempt, remove_attempt, sweep
from pacstore.install.root.trash import sweep_trash
from pacstore.install.seeds.adoption import Adoption
from pacstore.install.seeds.copying import Copying
from pacstore.install.seeds.seed import Seeds
from pacstore.install.seeds.seeking import find_seeds
from pacstore.install.seeds.sharing import Sharing
from pacstore.install.tools import Tools
from pacstore.install.tree.disk import check_owner, disk_at, exchange
from pacstore.install.tree.paths import Paths
from pacstore.install.tree.skeleton import (
    check_case,
    finish_directories,
    make_directories,
    make_empty_files,
    make_hard_links,
    make_symlinks,
)
from pacstore.install.wanted import Wanted
from pacstore.install.writeback import writing_back
from pacstore.install.writer import Writer
from pacstore.placement import Placement
from pacstore.progress import Progress
from pacstore.source import PerhapsAbsent, Source
from pacstore.storage import Clock
from pacstore.trust.targets import CatalogRelease

_BEGINNINGS = 3
"""How often an installation begins whose files are taken away each time."""


class _Displaced(Exception):
    """Another installation has taken over the attempt that failed with `cause`."""

    def __init__(self, cause: PacballError) -> None:
        super().__init__()
        self.cause = cause


@dataclass(frozen=True, eq=False)
class _Prepared:
    """All that is known before anything is begun. Holds the directories of seeds open."""

    documents: Documents
    wanted: Wanted
    placement: Placement
    seeds: Seeds
    plan: Plan

    def close(self) -> None:
        self.seeds.close()


@dataclass
class Building:
    """One installation of a release that is not there yet. `release` changes where a newer placement is used."""

    release: CatalogRelease
    root: Root
    source: Source
    progress: Progress
    now: Clock
    refresh: Refresh | None
    options: InstallOptions
    planned: Callable[[Plan], None] = lambda _: None
    replace: bool = False
    """Whether the release is there already, without what its commands generate, and its tree is to be replaced."""
    ran: tuple[Ran, ...] = ()
    """The release's own commands that were run."""

    def plan(self) -> Plan:
        """What `run` would do; nothing is changed. Raises as `pacstore.install.plan` does."""
        with contextlib.closing(self._prepare()) as prepared:
            return prepared.plan

    def run(self) -> int:
        """Install the release; how many bytes of its files came from local trees. Raises as `install` does."""
        cleanse_ended(self.root, self.release.release, owner=self.options.owner or (os.geteuid(), os.getegid()))
        for beginning in range(_BEGINNINGS):
            try:
                reused = self._begin(planned=self.planned if beginning == 0 else lambda _: None)
                break
            except _Displaced as error:
                if beginning == _BEGINNINGS - 1:
                    raise error.cause from error
                self.progress.warn(
                    "another installation took this one for dead and took over its files; it begins anew"
                )
        settle(self.root)
        sweep(self.root)
        with contextlib.suppress(OSError):
            sweep_trash(self.root, self.progress.warn)
        return reused

    def _begin(self, *, planned: Callable[[Plan], None]) -> int:
        with contextlib.closing(self._prepare()) as prepared:
            planned(prepared.plan)
            check_space(prepared.plan, str(self.root.path))
            return self._attempt(prepared.documents, prepared.wanted, prepared.placement, prepared.seeds)

    def _prepare(self) -> _Prepared:
        check_owner(self.options.owner)
        self.progress.begin("preparing", None)
        name = self.release.release
        switched_from = self.root.switched_to(name)
        free = self.options.free_space(self.root.top)
        documents, placement, self.release = fetch_all(self.source, self.release, self.refresh)
        wanted = Wanted(documents.manifest, documents.attributes)
        seeds = find_seeds(self.root, wanted, name, options=self.options, progress=self.progress)
        try:
            plan = make_plan(
                self.release, wanted, placement, seeds, free=free, switched_from=switched_from, options=self.options
            )
        except BaseException:
            seeds.close()
            raise
        return _Prepared(documents, wanted, placement, seeds, plan)

    def _attempt(self, documents: Documents, wanted: Wanted, placement: Placement, seeds: Seeds) -> int:
        attempt = Attempt.begin(self.root, self.release.release, documents.manifest.digest, self.now())
        try:
            with (
                signs_of_life(attempt.sign),
                disk_at(f"the tree of {self.release.release} in {self.root.path / PRIVATE}"),
            ):
                attempt.tell(documents.manifest_bytes)
                reused = self._fill(attempt, documents, wanted, placement, seeds)
                generated = self._act(attempt, documents)
                self._publish(attempt, documents, generated)
        except PacballError as error:
            attempt.give_up()
            if self.replace or isinstance(error, ActionFailed) or not self._installed_by_another():
                if attempt.displaced:
                    raise _Displaced(error) from error
                raise
            reused = 0
        except BaseException:
            attempt.give_up()
            raise
        finally:
            attempt.close()
        remove_attempt(self.root, attempt.name)
        return reused

    def _fill(self, attempt: Attempt, documents: Documents, wanted: Wanted, placement: Placement, seeds: Seeds) -> int:
        paths = Paths(documents.manifest.tree)
        if self.options.folds_case(attempt.directory):
            check_case(paths)
        tools = Tools(attempt.top, paths, open_directories=self.options.open_directories)
        writer = Writer(
            wanted,
            documents.attributes,
            paths,
            top=attempt.top,
            open_files=self.options.open_files,
            exact_modes=attempt.exact_modes,
            owner=self.options.owner,
            links=self.options.share is Share.HARDLINK,
        )
        with contextlib.closing(tools), contextlib.closing(writer):
            make_directories(tools.tree, paths, exact_modes=attempt.exact_modes)
            reused = self._bring(attempt, wanted, placement, seeds, writer)
            make_empty_files(tools.tree, wanted, writer)
            make_symlinks(tools.tree, paths, documents.attributes, owner=self.options.owner)
            make_hard_links(tools.tree, paths, documents.attributes)
            finish_directories(tools.tree, paths, documents.attributes.mtimes, owner=self.options.owner)
            if self.options.owner is not None:
                os.fchown(attempt.top, *self.options.owner)
        return reused

    def _bring(self, attempt: Attempt, wanted: Wanted, placement: Placement, seeds: Seeds, writer: Writer) -> int:
        """Bring the content of all files; how many bytes of it were here already."""
        downloading = Downloading(
            wanted,
            writer.take,
            self.source,
            replaced=self._replaced(wanted),
            progress=self.progress,
            options=self.options,
        )
        limit = self.options.open_directories
        with (
            writing_back(attempt.sync, lambda: writer.written_bytes),
            Crew(self.options.workers, lambda: Tools(attempt.top, writer.paths, open_directories=limit)) as crew,
        ):
            Adoption(self.root, wanted, writer, self.progress).adopt(crew, seeds)
            Sharing(wanted, writer, self.progress).share(crew, seeds)
            Copying(wanted, writer, self.progress).copy(crew, seeds)
            self._drop_ended(attempt, seeds)
            reused = wanted.bytes_of(wanted.have.nonzero()[0].astype("i4"))
            seeds.close()
            downloading.download(crew, placement)
        return reused

    def _drop_ended(self, attempt: Attempt, seeds: Seeds) -> None:
        """Remove the ended attempts whose content is here now, so that few trees take up room at a time."""
        ended = [seed.attempt for seed in seeds.used if seed.ended]
        if ended:
            attempt.sync()
        for name in ended:
            remove_attempt(self.root, name)

    def _replaced(self, wanted: Wanted) -> Callable[[NotFound | PerhapsAbsent], Placement]:
        def replaced(error: NotFound | PerhapsAbsent) -> Placement:
            self.release = refreshed(self.release, self.refresh, error)
            return fetch_placement(self.source, self.release, wanted.manifest)

        return replaced

    def _act(self, attempt: Attempt, documents: Documents) -> Generated | None:
        """Run the release's own commands, if they are to be run and there are any: what they generated."""
        if self.options.actions is None or not declares(documents.manifest.tree):
            return None
        name = self.release.release
        declared = Declaration.parse(read_declaration(attempt.top), place=f"{FILE} of {name}")
        top = os.fstat(attempt.top)
        actions = Actions(
            self.root,
            name,
            attempt,
            owner=(top.st_uid, top.st_gid),
            options=self.options.actions,
            progress=self.progress,
            now=self.now,
        )
        acted = actions.run(Paths(documents.manifest.tree), documents.attributes, declared)
        self.ran = acted.ran
        return acted.generated

    def _publish(self, attempt: Attempt, documents: Documents, generated: Generated | None) -> None:
        self.progress.begin("syncing", None)
        attempt.sync()
        name = self.release.release
        self._check_record()
        self.root.keep(name, documents, attempt.directory)
        if generated is not None:
            stage(attempt.directory, generated)
        if self._admitted(attempt):
            place_record(self.root, attempt.directory)
        elif not self._installed_by_another():
            raise Refused(
                "came into being while it was installed, and pacball did not make it",
                place=str(self.root.release_path(name)),
                hint="move it away and run the same command again",
            )
        self.root.keep_missing(name, documents, attempt.directory)

    def _check_record(self) -> None:
        """Raise Refused if another tree got the name meanwhile, whose record is not to be replaced."""
        recorded = self.root.recorded(self.release.release)
        if recorded not in (None, self.release.tree_digest):
            raise Refused(
                f"was installed with another tree ({recorded}) meanwhile; the catalog says {self.release.tree_digest}",
                place=str(self.root.release_path(self.release.release)),
                hint="a release never changes: find out which of the two is genuine, and move the other away",
            )

    def _admitted(self, attempt: Attempt) -> bool:
        """Give the tree its name; False where another has it."""
        name = self.release.release
        if not self.replace:
            return self.root.admit(name, attempt.directory, TREE)
        # Killed between this and the record, the same call does it once more.
        try:
            exchange(attempt.directory, TREE, self.root.releases, str(name))
        except OSError as error:
            if error.errno == errno.ENOENT:  # it was removed meanwhile
                return self.root.admit(name, attempt.directory, TREE)
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            raise Refused(
                "cannot be exchanged with the tree in which its commands were run: the file system cannot do that",
                place=str(self.root.release_path(name)),
                hint="remove the release, and install it with --run-actions",
            ) from error
        os.fsync(self.root.releases)
        # Another who does the same at once may have been later: then the record is that one's, too.
        return os.path.samestat(os.stat(str(name), dir_fd=self.root.releases), os.fstat(attempt.top))

    def _installed_by_another(self) -> bool:
        return self.root.recorded(self.release.release) == self.release.tree_digest
