"""Releases with commands of their own: small trees, a pacball.toml for each, and their installation as this very user."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pacstore.contain import landlock
from pacstore.contain.running import User
from pacstore.errors import ActionFailed
from pacstore.install.actions.generated import Generated, read_generated
from pacstore.install.installation import Installed
from pacstore.install.options import ActionOptions, InstallOptions, Share
from pacstore.install.root.layout import Root
from pacstore.install.upkeep.verify import verify
from pacstore.release import Release
from tests.store.install.world import NAME, FakeSource, Notes, World, noise, put


def us() -> User:
    return User(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())


def declaration(
    generated: Sequence[str] = (),
    after: Sequence[str | Sequence[str]] = (),
    validate: Sequence[str | Sequence[str]] = (),
    timeout: str = "60s",
) -> str:
    """A pacball.toml; a command that is a text is for a shell."""
    lines = ["format = 1", f"generated = {json.dumps(list(generated))}"]
    for kind, commands in (("after_install", after), ("validate", validate)):
        for number, command in enumerate(commands):
            words = ["/bin/sh", "-euc", command] if isinstance(command, str) else list(command)
            if isinstance(command, str):
                words[2] = command.replace("{", "{{").replace("}", "}}")
            lines += [f"[[{kind}]]", f'name = "{kind[0]}{number}"', f"command = {json.dumps(words)}"]
            lines += [f'timeout = "{timeout}"']
    return "\n".join(lines) + "\n"


def make_release(top: Path, text: str) -> Path:
    """A tree with some of everything, and this pacball.toml."""
    (top / "bin").mkdir(parents=True)
    (top / "etc").mkdir()
    (top / "lib/pkg/sub").mkdir(parents=True)
    (top / "bin/run").write_text("#!/bin/sh\necho running\n")
    (top / "bin/run").chmod(0o755)
    (top / "etc/setup.sh").write_text("PREFIX=@PREFIX@\n")
    (top / "etc/other.conf").write_text("other\n")
    (top / "lib/pkg/__init__.py").write_text("")
    (top / "lib/pkg/sub/mod.py").write_text("X = 1\n")
    (top / "lib/data").write_bytes(noise("data", 300_000))
    (top / "lib/again").write_bytes(noise("data", 300_000))
    os.link(top / "etc/other.conf", top / "etc/linked.conf")
    (top / "lib/link").symlink_to("data")
    (top / "pacball.toml").write_text(text)
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    return top


@dataclass
class Acting:
    """One root, and releases that are published for it."""

    home: Path
    user: User = field(default_factory=us)
    landlock: int = field(default_factory=landlock.version)
    notes: Notes = field(default_factory=Notes)
    world: World = field(default_factory=lambda: World(frame_bytes=100_000))
    owner: tuple[int, int] | None = None
    grace_seconds: float = 0.3
    log_bytes: int = 16 << 20
    share: Share = Share.REFLINK

    @property
    def root(self) -> Path:
        return self.home / "root"

    @property
    def top(self) -> Path:
        return self.root / "releases" / NAME

    def publish(self, text: str, name: str = NAME) -> Path:
        tree = make_release(self.home / f"tree-{name}", text)
        self.world.publish(tree, name)
        return tree

    def options(self, *, run: bool = True, switch: bool = True) -> InstallOptions:
        actions = ActionOptions(
            self.user, landlock=self.landlock, grace_seconds=self.grace_seconds, log_bytes=self.log_bytes
        )
        return InstallOptions(
            range_bytes=1 << 20, actions=actions if run else None, owner=self.owner, switch=switch, share=self.share
        )

    def install(self, name: str = NAME, *, run: bool = True) -> Installed:
        return put(
            self.world.catalog[name], FakeSource(self.world), self.root, self.notes, options=self.options(run=run)
        )

    def fails(self, name: str = NAME) -> ActionFailed:
        """An installation that must fail for what its commands did: nothing installed, nothing switched, nothing left."""
        try:
            self.install(name)
        except ActionFailed as error:
            assert not (self.root / "releases" / name).exists()
            assert not list((self.root / "current").rglob("*/*"))
            assert not list((self.root / ".pacball/manifests").glob(f"{name}*"))
            return error
        raise AssertionError("it was installed")

    def record(self, name: str = NAME) -> Generated | None:
        with Root.open(self.root) as root:
            return read_generated(root, Release.parse(name))

    def damage(self, name: str = NAME) -> list[tuple[str, str]]:
        """What verify finds, warnings included."""
        [found] = verify(self.root, [Release.parse(name)], Notes())
        return [(one.path, str(one.fault)) for one in found.findings]

    def logs(self, name: str = NAME) -> list[Path]:
        return sorted((self.root / ".pacball/logs" / name).iterdir())

    def log(self, name: str = NAME) -> str:
        return "".join(path.read_text(errors="replace") for path in self.logs(name))
