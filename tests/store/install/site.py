"""Several releases installed under one root, one after another, at times that the test chooses."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pacstore.install.installation import Installed, install
from pacstore.install.options import InstallOptions
from pacstore.install.upkeep.pruning import Pruned, prune
from pacstore.install.upkeep.removal import Removal, remove
from pacstore.install.upkeep.rollback import RolledBack, roll_back
from pacstore.release import Release
from tests.store.install.world import FakeSource, Notes, World, noise

DAY = 86_400.0
START = 1_700_000_000.0


@dataclass
class InstalledSite:
    """A root, a world to install from, and a clock."""

    root: Path
    trees: Path
    world: World = field(default_factory=World)
    time: float = START

    def publish(self, name: str, files: dict[str, bytes] | None = None) -> None:
        tree = self.trees / name
        for path, data in (
            files if files is not None else {"file": noise(name, 5000), "same": noise("", 5000)}
        ).items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
            os.utime(tree / path, (START - 1000, START - 1000))
        self.world.publish(tree, name)

    def install(self, name: str, *, days: float = 1.0, switch: bool = True) -> Installed:
        """Install `name`, published now if it was not, `days` after what was before."""
        self.time += days * DAY
        if name not in self.world.catalog:
            self.publish(name)
        return install(
            self.world.catalog[name],
            source=FakeSource(self.world),
            root=self.root,
            progress=Notes(),
            now=self.now,
            options=InstallOptions(switch=switch),
        )

    def now(self) -> float:
        return self.time

    def remove(self, *names: str, grace: float = 7 * DAY) -> Removal:
        chosen = [Release.parse(name) for name in names]
        return remove(self.root, chosen, grace_seconds=grace, now=self.now, progress=Notes())

    def roll_back(
        self, project: str = "App", platform: str | None = None, *, to: str = "", days: float = 1
    ) -> RolledBack:
        self.time += days * DAY
        return roll_back(self.root, project, platform, to=Release.parse(to) if to else None, now=self.now)

    def prune(self, keep: int, *, grace: float = 7 * DAY, dry_run: bool = False, **chosen: str) -> Pruned:
        return prune(
            self.root,
            keep=keep,
            grace_seconds=grace,
            dry_run=dry_run,
            now=self.now,
            progress=Notes(),
            project=chosen.get("project"),
            platform=chosen.get("platform"),
        )

    def current(self, line: str = "App/any") -> str:
        """What `current` leads to."""
        return os.path.basename(os.readlink(self.root / "current" / line))

    def there(self) -> list[str]:
        """The trees under the root; each must have all its records, and nothing else may be left."""
        trees = sorted(os.listdir(self.root / "releases"))
        kept = sorted(os.listdir(self.root / ".pacball/manifests"))
        assert kept == sorted(f"{tree}.{suffix}" for tree in trees for suffix in ("attributes", "manifest"))
        for place in ("staging", "trash"):
            if (self.root / ".pacball" / place).exists():
                left = sorted(str(path) for path in (self.root / ".pacball" / place).rglob("*"))
                assert left == [], left
        return trees
