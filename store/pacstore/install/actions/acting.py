"""Actions: a release's own commands, run in its staging tree before it gets its name, and what they leave there.

Order: everything is verified and written; what the patterns of pacball.toml allow is opened to the commands; they run; everything
is taken back, compared with the manifest, and what was generated is described for the record; then the release's checks run,
which may write nowhere, and the tree is compared again. Whatever fails, the installation fails and nothing is switched.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from pacstore.attributes import Attributes
from pacstore.contain.running import Ended, Order, User, run
from pacstore.declaration import FILE, FILE_BYTES, Command, Declaration
from pacstore.document import Numbers
from pacstore.errors import ActionFailed
from pacstore.install.actions.cleansing import mark, unmark
from pacstore.install.actions.comparison import Comparison, Snapshot, compare_made, take_snapshot
from pacstore.install.actions.generated import Generated, Made
from pacstore.install.actions.harvest import Faults, Harvest
from pacstore.install.actions.places import find_places, hand_over
from pacstore.install.options import ActionOptions
from pacstore.install.root.layout import PRIVATE, PRIVATE_MODE, Root
from pacstore.install.root.logs import Log, new_log
from pacstore.install.root.staging import TREE, Attempt
from pacstore.install.tree.clearing import clear_tree
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import make_directory
from pacstore.install.tree.paths import Paths
from pacstore.install.tree.skeleton import finish_directories
from pacstore.install.tree.unsharing import unshare
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.storage import Clock

SCRATCH = "scratch"
"""The directory in an attempt that commands have for themselves: HOME, and TMPDIR in it."""
PASSABLE = 0o711
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPEN_DIRECTORIES = 64


@dataclass(frozen=True)
class Ran:
    """One command that was run: of which kind (`after_install`, `validate`), how it ended, and where its output is."""

    kind: str
    name: str
    passed: bool
    ended: str
    seconds: float
    log: Path


@dataclass(frozen=True)
class Site:
    """Where commands of a release run: in `tree`, which is or will be `prefix`; `scratch` is for themselves. All absolute.

    `top` is the tree, open, and `attempt` the directory that holds the scratch: what commands get must be these, whatever the
    paths lead to.
    """

    root: Root
    release: Release
    tree: Path
    prefix: Path
    scratch: Path
    top: int
    attempt: int

    def environment(self, user: User) -> dict[str, str]:
        """All that commands find in their environment."""
        return {
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch / "tmp"),
            "USER": user.name,
            "LOGNAME": user.name,
            "SHELL": "/bin/sh",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PACBALL_PREFIX": str(self.prefix),
            "PACBALL_STAGING": str(self.tree),
            "PACBALL_RELEASE": str(self.release),
            "PACBALL_PROJECT": self.release.project,
            "PACBALL_VERSION": self.release.version,
            "PACBALL_PLATFORM": self.release.platform,
        }


def declares_actions(root: Root, release: Release) -> bool:
    """Whether the installed `release` has a file of declarations."""
    with contextlib.suppress(OSError):
        directory = os.open(
            str(release), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root.releases
        )
        try:
            return stat.S_ISREG(os.stat(FILE, dir_fd=directory, follow_symlinks=False).st_mode)
        finally:
            os.close(directory)
    return False


def read_declaration(top: int) -> bytes:
    """The file of declarations of the tree with the open directory `top`, one byte more than allowed at most. Raises OSError."""
    descriptor = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=top)
    with open(descriptor, "rb") as file:
        return file.read(FILE_BYTES + 1)


class Commands:
    """Runs commands at one site, one after another, and says what came of each."""

    def __init__(self, site: Site, options: ActionOptions, progress: Progress, now: Clock) -> None:
        self._site = site
        self._options = options
        self._progress = progress
        self._now = now

    def run(
        self,
        kind: str,
        commands: Sequence[Command],
        *,
        writable: Sequence[str],
        started: Callable[[int], None] = lambda _: None,
        to_the_end: bool = False,
    ) -> list[Ran]:
        """Run them, up to and with the first that fails, or `to_the_end`. Raises OSError, Unavailable."""
        done = []
        for number, command in enumerate(commands, 1):
            self._progress.begin(f"running {command.name}", None)
            name = f"{kind}-{number}-{command.name}"
            with new_log(self._site.root, self._site.release, name, now=self._now()) as log:
                done.append(self._run(kind, command, writable, log, started))
            if not done[-1].passed and not to_the_end:
                break
        return done

    def _run(
        self, kind: str, command: Command, writable: Sequence[str], log: Log, started: Callable[[int], None]
    ) -> Ran:
        site, user = self._site, self._options.user
        values = {"prefix": str(site.prefix), "staging": str(site.tree), "release": str(site.release)}
        argv = command.argv(values)
        log.say(
            f"{kind} {command.name} of {site.release}",
            f"runs {list(argv)} in {site.tree}",
            f"as {user.name}, for {command.timeout_seconds} s at most; {self._bounds()}",
        )
        order = Order(
            argv=argv, directory=str(site.tree), environment=site.environment(user), user=user,
            timeout_seconds=command.timeout_seconds, writable=tuple(writable), scratch=str(site.scratch),
            landlock=self._options.landlock, grace_seconds=self._options.grace_seconds,
            log_bytes=self._options.log_bytes, directory_is=_inode(os.fstat(site.top)),
            scratch_is=_inode(os.stat(SCRATCH, dir_fd=site.attempt, follow_symlinks=False)),
        )  # fmt: skip
        ended = run(order, log.descriptor, started=started)
        self._tell(command, ended, log)
        return Ran(kind, command.name, ended.passed, str(ended), ended.seconds, log.path)

    def _bounds(self) -> str:
        if self._options.landlock:
            return f"Landlock {self._options.landlock} keeps it from writing elsewhere"
        return "this kernel has no Landlock: only its user's permissions keep it from writing elsewhere"

    def _tell(self, command: Command, ended: Ended, log: Log) -> None:
        warn = self._progress.warn
        if not ended.passed:
            for line in log.last_lines():
                warn(f"{command.name}: {line}")
        notes = [f"it {ended}, after {ended.seconds:.1f} s"]
        if ended.dropped_bytes:
            notes.insert(0, f"{ended.dropped_bytes:,} further bytes of output were dropped")
        if ended.left and not ended.timed_out:
            notes.append(f"{ended.left} processes that it left running were ended")
            warn(f"{command.name}: {notes[-1]}")
        if ended.stuck:
            notes.append(f"{ended.stuck} of its processes cannot be ended")
            warn(f"{command.name}: {notes[-1]}: look for them, and for a file system that does not answer")
        log.say(*notes)


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class Acted:
    """What came of a release's commands: the record, and each command that was run."""

    generated: Generated
    ran: tuple[Ran, ...]


class Actions:
    """All commands of one release, at the tree of one attempt, which belongs to `owner` (user and group id)."""

    def __init__(
        self,
        root: Root,
        release: Release,
        attempt: Attempt,
        *,
        owner: tuple[int, int],
        options: ActionOptions,
        progress: Progress,
        now: Clock,
    ) -> None:
        self._root = root
        self._release = release
        self._attempt = attempt
        self._owner = owner
        self._options = options
        self._progress = progress
        above = Path(os.path.abspath(root.path))
        staging = above / PRIVATE / "staging" / attempt.name
        prefix = above / "releases" / str(release)
        site = Site(root, release, staging / TREE, prefix, staging / SCRATCH, attempt.top, attempt.directory)
        self._commands = Commands(site, options, progress, now)

    def run(self, paths: Paths, attributes: Attributes, declared: Declaration) -> Acted:
        """Run everything. Raises ActionFailed; Refused for too much; OSError, Unavailable."""
        mark(self._attempt.directory, os.getpid())
        with passage(self._root, self._attempt.directory, self._options.user):
            tree = _Tree(paths, attributes, self._attempt.top)
            ran: list[Ran] = []
            made: dict[str, Made] = {}
            if declared.after_install:
                made = self._generate(tree, declared, ran)
            if declared.validate:
                exposed = self._exposed(frozenset())
                with tree.opening() as directories:
                    unshare(paths, directories, attributes, exposed=exposed)
                    snapshot = take_snapshot(paths, directories)
                ran += self._run("validate", declared.validate, ())
                self._compare(tree, snapshot, made, exposed=exposed)
            with tree.opening() as directories:
                finish_directories(directories, paths, attributes.mtimes, owner=None)
        unmark(self._attempt.directory)
        return Acted(Generated(self._release, paths.tree.digest, declared.generated, made), tuple(ran))

    def _generate(self, tree: _Tree, declared: Declaration, ran: list[Ran]) -> dict[str, Made]:
        user = self._options.user
        places = find_places(tree.paths, declared.generated)
        exposed = self._exposed(places.exposed(tree.paths))
        with tree.opening() as directories:
            unshare(tree.paths, directories, tree.attributes, exposed=exposed)
            hand_over(places, directories, tree.paths, user)
            snapshot = take_snapshot(tree.paths, directories)
        ran += self._run("after_install", declared.after_install, places.writable)
        self._progress.begin("checking what was generated", None)
        harvest = Harvest(tree.paths, places, tree.mtimes, user=user, owner=self._owner)
        with tree.opening() as directories:
            harvest.run(directories, tree.top)
        harvested = {place.entry for place in places.places}
        self._compare(tree, snapshot, harvest.made, exposed=exposed, harvested=harvested, faults=harvest.faults)
        with tree.opening() as directories:
            harvest.relink(directories, tree.attributes)
        return harvest.made

    def _run(self, kind: str, commands: Sequence[Command], writable: Sequence[str]) -> list[Ran]:
        directory = self._attempt.directory
        done = self._commands.run(kind, commands, writable=writable, started=lambda pid: mark(directory, pid))
        if not done[-1].passed:
            raise ActionFailed(
                f"the command {done[-1].name} ({kind}) of {self._release} {done[-1].ended}; nothing was switched",
                place=str(done[-1].log),
                hint="read that log; the same command starts again from a clean tree",
            )
        return done

    def _exposed(self, opened: AbstractSet[int]) -> AbstractSet[int] | None:
        """The directories whose files commands can open for writing, where `opened` is to them; None for all."""
        user = self._options.user
        if user.uid not in (0, self._owner[0]):
            return frozenset()
        return opened if self._options.landlock and user.uid != 0 else None

    def _compare(
        self,
        tree: _Tree,
        snapshot: Snapshot,
        made: Mapping[str, Made],
        *,
        exposed: AbstractSet[int] | None,
        harvested: AbstractSet[int] = frozenset(),
        faults: Faults | None = None,
    ) -> None:
        """Raise ActionFailed unless the tree is its manifest's, but for what was `made`. Directories are entry numbers."""
        comparison = Comparison(
            tree.paths,
            snapshot,
            tree.mtimes,
            exposed=exposed,
            made=made,
            owner=self._owner,
            harvested=harvested,
            faults=faults,
        )
        with tree.opening() as directories:
            self._judge(comparison.run(directories))
        self._judge(compare_made(made, tree.top, owner=self._owner))

    def _judge(self, faults: Faults) -> None:
        if faults.count:
            raise ActionFailed(
                f"the commands of {self._release} wrote where they may not: {faults}; nothing was switched",
                place=str(self._root.path / PRIVATE / "logs" / str(self._release)),
                hint=f"tell its publisher that {FILE} must declare all that its commands generate",
            )


@dataclass(frozen=True, eq=False)
class _Tree:
    """A tree being worked on: its entries, their times and hard links, and its open top directory."""

    paths: Paths
    attributes: Attributes
    top: int

    @property
    def mtimes(self) -> Numbers:
        """Of the entries, in seconds."""
        return self.attributes.mtimes

    @contextlib.contextmanager
    def opening(self) -> Iterator[Directories]:
        """Its directories, opened anew each time: one that was opened before a command ran may have been moved away by it."""
        with contextlib.closing(Directories(self.top, self.paths, limit=_OPEN_DIRECTORIES)) as directories:
            yield directories


@contextlib.contextmanager
def passage(root: Root, attempt: int, user: User) -> Iterator[None]:
    """A way to the attempt, and a scratch directory in it, for `user`; closed and removed at the end. Raises OSError."""
    scratch = make_directory(attempt, SCRATCH, PRIVATE_MODE)
    try:
        os.close(make_directory(scratch, "tmp", PRIVATE_MODE))
        if user.changes:
            for directory in (root.private, root.staging, attempt):
                os.fchmod(directory, PASSABLE)
            os.chown("tmp", user.uid, user.gid, dir_fd=scratch, follow_symlinks=False)
            os.fchown(scratch, user.uid, user.gid)
        yield
    finally:
        os.close(scratch)
        os.fchmod(attempt, PRIVATE_MODE)
        clear_tree(attempt, SCRATCH.encode())
