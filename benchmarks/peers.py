"""The programs that pacball is measured against, each behind the same few verbs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from benchmarks.measure import Command, run_untimed
from benchmarks.trees import stored_bytes

PROGRAMS = {
    "casync": ("casync", "--version"),
    "borg": ("borg", "--version"),
    "restic": ("restic", "version"),
    "nginx": ("nginx", "-v"),
    "rsync": ("rsync", "--version"),
    "zstd": ("zstd", "--version"),
    "curl": ("curl", "--version"),
    "tar": ("tar", "--version"),
    "b3sum": ("b3sum", "--version"),
}


class Archiver(Protocol):
    """Keeps successive trees in one store under ``home``.

    ``prepare`` makes ``home`` and the empty store. ``ingest`` adds ``tree`` as version ``label``; ``restore`` puts it back into
    ``target``, an empty directory. ``stored`` is what has to be kept: no index that can be rebuilt, no cache.
    """

    name: str

    def prepare(self, home: Path) -> None: ...
    def ingest(self, home: Path, tree: Path, label: str) -> Command: ...
    def restore(self, home: Path, label: str, target: Path) -> Command: ...
    def stored(self, home: Path) -> int: ...


class Casync:
    """Its default feature set (everything the file system knows), 64 KiB chunks, zstd."""

    name = "casync"

    def prepare(self, home: Path) -> None:
        (home / "public" / "store.castr").mkdir(parents=True)

    def ingest(self, home: Path, tree: Path, label: str) -> Command:
        public = home / "public"
        options = [f"--store={public}/store.castr", "--compression=zstd"]
        return Command(["casync", "make", *options, f"{public}/{label}.caidx", str(tree)], _home(home))

    def restore(self, home: Path, label: str, target: Path) -> Command:
        return self.extract(str(home / "public"), label, target, home=home)

    def extract(self, source: str, label: str, target: Path, *, home: Path, seed: Path | None = None) -> Command:
        """From ``source``, a directory or a URL; ``seed`` is a tree whose bytes may be reused."""
        seeds = [] if seed is None else [f"--seed={seed}"]
        options = [f"--store={source}/store.castr", *seeds]
        return Command(["casync", "extract", *options, f"{source}/{label}.caidx", str(target)], _home(home))

    def stored(self, home: Path) -> int:
        return stored_bytes(home / "public")


class Borg:
    """borg create -C zstd,3 without encryption; its index, hints and integrity files are not counted."""

    name = "borg"

    def prepare(self, home: Path) -> None:
        home.mkdir()
        run_untimed(self._borg(home, "init", "--encryption=none", str(home / "repo")))

    def ingest(self, home: Path, tree: Path, label: str) -> Command:
        return self._borg(home, "create", "-C", "zstd,3", f"{home}/repo::{label}", ".", cwd=tree)

    def restore(self, home: Path, label: str, target: Path) -> Command:
        return self._borg(home, "extract", f"{home}/repo::{label}", cwd=target)

    def stored(self, home: Path) -> int:
        return stored_bytes(home / "repo", without=("index.", "hints.", "integrity."))

    def _borg(self, home: Path, *words: str, cwd: Path | None = None) -> Command:
        environment = {"BORG_BASE_DIR": str(home / "base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        return Command(["borg", *words], {**_home(home), **environment}, cwd)


class Restic:
    """A version 2 repository with restic's own (automatic) compression; its index is not counted."""

    name = "restic"

    def prepare(self, home: Path) -> None:
        home.mkdir()
        (home / "password").write_text("benchmark\n")
        run_untimed(self._restic(home, "init", "--repository-version", "2"))

    def ingest(self, home: Path, tree: Path, label: str) -> Command:
        return self._restic(home, "backup", "--compression", "auto", "--tag", label, ".", cwd=tree)

    def restore(self, home: Path, label: str, target: Path) -> Command:
        return self._restic(home, "restore", "latest", "--tag", label, "--target", str(target))

    def stored(self, home: Path) -> int:
        return stored_bytes(home / "repo", without=("index",))

    def _restic(self, home: Path, *words: str, cwd: Path | None = None) -> Command:
        options = ["-r", f"{home}/repo", "--password-file", f"{home}/password", "--cache-dir", f"{home}/cache"]
        return Command(["restic", "--quiet", *options, *words], _home(home), cwd)


def tar_zst(tree: Path, archive: Path) -> None:
    """Writes ``tree`` to ``archive`` as a tar compressed at zstd level 3."""
    script = 'tar --sort=name --numeric-owner -C "$0" -cf - . | zstd -q -3 -T0 -o "$1"'
    run_untimed(Command(["bash", "-o", "pipefail", "-c", script, str(tree), str(archive)]))


def curl_tar(url: str, target: Path) -> Command:
    """The download that everybody knows: curl | zstd -d | tar x."""
    script = 'curl -sSf "$0" | zstd -q -dc | tar -xf - -C "$1"'
    return Command(["bash", "-o", "pipefail", "-c", script, url, str(target)])


def rsync_az(port: int, target: Path) -> Command:
    """Makes ``target`` the tree that the rsync daemon on ``port`` serves, by delta, compressed, by checksum."""
    source = f"rsync://127.0.0.1:{port}/tree/"
    return Command(["rsync", "-az", "-c", "--delete", "--stats", source, f"{target}/"])


def rsync_bytes(stats: str) -> int:
    """Bytes in both directions, from the output of --stats."""
    found = [line.rpartition(":")[2] for line in stats.splitlines() if line.startswith("Total bytes")]
    return sum(int("".join(filter(str.isdigit, text))) for text in found)


def missing() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


def versions() -> Mapping[str, str]:
    """The first line that says which version of each peer was measured."""
    found = {}
    for name, argv in PROGRAMS.items():
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if any(map(str.isdigit, line))]
        found[name] = lines[0].strip() if lines else "unknown"
    return found


def _home(home: Path) -> dict[str, str]:
    return {"HOME": str(home)}
