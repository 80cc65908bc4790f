"""Backups of a store, and stores made from them.

A backup is a directory with the layout of a store, so that all that reads a store reads it, too; what it is, and which state of
the store it holds, is recorded in its `private/backup.json` (`pacstore.backup.record`).
"""

from pacstore.backup.backing_up import back_up
from pacstore.backup.packs import RestoreReport
from pacstore.backup.restoring import restore
from pacstore.backup.work import BackupReport

__all__ = ["BackupReport", "RestoreReport", "back_up", "restore"]
