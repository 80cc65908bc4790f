"""Release names: PROJECT-VERSION-PLATFORM (FORMAT.md section 3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pacstore.errors import Refused, printable
from pacstore.limits import LIMITS

_PROJECT = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._]*\Z")
_PLATFORM = re.compile(r"[A-Za-z0-9._-]+\Z")
EXAMPLE = "AtlasOffline-17.2.0-x86_64-slc6-gcc46-opt"


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """A release's name, valid by construction: make it with `Release.parse`."""

    project: str
    version: str
    platform: str

    @classmethod
    def parse(cls, text: str) -> Release:
        """The release named `text`. Raises Refused, with a suggested spelling where there is one."""
        project, version, platform = ([*text.split("-", 2), "", ""])[:3]
        fault = _fault(text, project, version, platform)
        if fault:
            raise Refused(f"is not a release name: {fault}", place=printable(text[:200]), hint=_suggest(text))
        return cls(project, version, platform)

    def __str__(self) -> str:
        return f"{self.project}-{self.version}-{self.platform}"


def _fault(text: str, project: str, version: str, platform: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > LIMITS.release_name_bytes:
        return f"it is longer than {LIMITS.release_name_bytes} bytes"
    if not platform:
        return "it does not have the form PROJECT-VERSION-PLATFORM"
    if not _PROJECT.match(project):
        return f"the project {printable(project)!r} must be a letter, then letters, digits and '_'"
    if not _VERSION.match(version):
        return f"the version {printable(version)!r} must be a letter or digit, then letters, digits, '.' and '_'"
    if not _PLATFORM.match(platform):
        return f"the platform {printable(platform)!r} must be letters, digits, '.', '_' and '-'"
    if ".." in text or text.endswith("."):
        return "it may not contain '..' or end with '.'"
    return ""


def _suggest(text: str) -> str:
    better = re.sub(r"[^A-Za-z0-9._-]", "_", text)
    better = re.sub(r"\.\.+", ".", better).rstrip(".")
    project, version, platform = ([*better.split("-", 2), "", ""])[:3]
    if better != text and not _fault(better, project, version, platform):
        return f"write {better}"
    return f"write for example {EXAMPLE}"


def check_project(name: str) -> None:
    """Raise Refused unless `name` can be the PROJECT of releases."""
    if not _PROJECT.match(name):
        raise Refused(
            "is not the name of a project", place=printable(name[:200]), hint="a letter, then letters, digits and '_'"
        )
