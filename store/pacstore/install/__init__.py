"""The installer: a release from an untrusted source, whole and verified, into an install root.

`install` and `plan` are the doors; `pacstore.install.verify` checks what is installed, offline. Everything here is
synchronous; batches of work go to a few threads, never single chunks or files.
"""

from pacstore.install.disk import Free
from pacstore.install.installation import Installed, install, plan
from pacstore.install.options import InstallOptions
from pacstore.install.plan import Plan, Reuse

__all__ = ["Free", "InstallOptions", "Installed", "Plan", "Reuse", "install", "plan"]
