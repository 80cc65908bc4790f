"""The installer: a release from an untrusted source, whole and verified, into an install root.

`install` and `plan` of installation.py are the doors. An installation goes through installation, plan, building, downloading,
writer, in this order.

    tree/       trees on a disk: paths, directories held open, blocks shared, everything removed
    root/       an install root: its layout, its history, what is kept of releases, attempts, trash
    seeds/      local trees as sources: found, verified as they are read, copied, cloned or linked
    actions/    a release's own commands, before the switch and to validate
    upkeep/     installed releases: verify, repair, roll back, remove

Everything is synchronous; batches of work go to a few threads or processes, never single chunks or files.

Nothing is imported here: who verifies, or lists what is installed, would wait for all of an installer.
"""
