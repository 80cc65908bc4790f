"""The installer: a release from an untrusted source, whole and verified, into an install root.

`install` and `plan` are the doors. An installation goes through installation, plan, building, downloading, writer, in this order.

    tree/       trees on a disk: paths, directories held open, blocks shared, everything removed
    root/       an install root: its layout, its history, what is kept of releases, attempts, trash
    seeds/      local trees as sources: found, verified as they are read, copied, cloned or linked
    actions/    a release's own commands, before the switch and to validate
    upkeep/     installed releases: verify, repair, roll back, remove

Everything is synchronous; batches of work go to a few threads, never single chunks or files.
"""

from pacstore.install.installation import Installed, install, plan
from pacstore.install.options import InstallOptions
from pacstore.install.plan import Plan, Reuse
from pacstore.install.tree.disk import Free

__all__ = ["Free", "InstallOptions", "Installed", "Plan", "Reuse", "install", "plan"]
