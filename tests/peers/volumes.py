"""File systems of our own, in files: to fill them, to take the power away from them, to mount them read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.site import wait_until
from tests.peers.programs import call, program, require_root

SFTP_SERVER = "/usr/lib/openssh/sftp-server"


class Volume:
    """A file system of `kind` (ext4, xfs, btrfs) in the file `image`, mounted at `path`."""

    def __init__(self, kind: str, image: Path, path: Path) -> None:
        self.kind = kind
        self.image = image
        self.path = path

    def mount(self, *options: str) -> None:
        call("mount", "-o", ",".join(("loop", *options)), self.image, self.path)

    def remount(self, *options: str) -> None:
        """Change options while it is mounted, for example to `ro`."""
        call("mount", "-o", ",".join(("remount", *options)), self.path)

    def unmount(self) -> None:
        """Unmount it, as soon as the last process that was ended lets go of it; and whoever else sees the mount, too."""
        for _ in range(100):
            if call("umount", self.path, check=False).returncode == 0:
                break
            time.sleep(0.05)
        else:
            call("umount", self.path)
        # Mounted again while its device still is in use, it would be the same file system, in the state it is in.
        wait_until(lambda: not call("losetup", "-j", self.image).stdout, seconds=60)

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and everything that was not synced is lost."""
        call("xfs_io", "-x", "-c", "shutdown", self.path)

    def power_on(self) -> None:
        """Mount what the power cut left."""
        self.unmount()
        self.mount()

    def is_dead(self) -> bool:
        """Whether the power is off."""
        try:
            os.listdir(self.path)
        except OSError:
            return True
        return False


@contextlib.contextmanager
def volume(kind: str, where: Path, *, mib: int) -> Iterator[Volume]:
    """A new file system of `mib` MiB below `where`; unmounted at the end."""
    require_root()
    made = Volume(kind, where / f"{kind}.img", where / f"{kind}.mnt")
    made.path.mkdir()
    with made.image.open("wb") as image:
        image.truncate(mib << 20)
    call(f"mkfs.{kind}", "-q", made.image)
    made.mount()
    try:
        yield made
    finally:
        made.unmount()
        made.image.unlink()


@contextlib.contextmanager
def memory_volume(where: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these options, mounted below `where`."""
    require_root()
    path = where / "tmpfs"
    path.mkdir()
    call("mount", "-t", "tmpfs", "-o", options, "tmpfs", path)
    try:
        yield path
    finally:
        call("umount", path)


@contextlib.contextmanager
def network_volume(where: Path) -> Iterator[Path]:
    """A directory mounted through sshfs, which talks to its server over a pipe; no network and no login is needed."""
    require_root()
    program("sshfs")
    remote, path = where / "remote", where / "sshfs"
    remote.mkdir()
    path.mkdir()
    argv = [program("socat"), f"EXEC:{SFTP_SERVER}", f"EXEC:sshfs host\\:{remote} {path} -f -o passive"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: os.path.ismount(path) or process.poll() is not None)
            assert process.poll() is None, process.stderr.read()
            yield path
        finally:
            call("umount", path, check=False)
            process.terminate()
