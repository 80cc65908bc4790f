"""Anchors: which root is trusted for a source, and why.

The root that is trusted is, in this order: --root-keys; `root_keys` of config.toml; the one in a directory of pinned roots
that is this source's; for a store directory which only this user and root can change, its own; the one that was trusted on
first use. --insecure goes before all of them. Several sources share one: that of the first which has one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paccli.options import TrustOptions
from paccli.output import Output
from paccli.places import roots_dirs, state_dir
from paccli.settings import Settings
from pacmirror.verdict import all_failed
from pacstore.errors import NotFound, PacballError, Untrusted
from pacstore.install.trust import Mode
from pacstore.source import Source
from pacstore.storage import DocumentKind, document_path
from pacstore.trust import private
from pacstore.trust.metadata import METADATA_LIMITS, file_name, verify_root
from pacstore.trust.ownership import stranger
from pacstore.trust.pins import Pins, check_root, fetch_root, find_pin, fingerprint, read_pins


@dataclass(frozen=True)
class Anchor:
    """The root that is trusted for a source, and why."""

    root: bytes
    mode: Mode


@dataclass(frozen=True)
class Candidate:
    """A source by itself; `store`: its directory, if it is one; `scope`: of which address of Rucio it is a part, if it is."""

    source: Source
    store: Path | None
    scope: str = ""

    @property
    def pin_name(self) -> str:
        """Under which name its root is remembered. A path means the same directory wherever the command is run."""
        if self.scope:
            return self.scope
        return str(self.store.resolve()) if self.store is not None else self.source.name

    @property
    def others(self) -> str:
        """Why its directory could have been changed by others; empty if it could not, or is none."""
        return stranger(self.store, uid=os.geteuid()) if self.store is not None else ""


def find_anchor(candidates: Sequence[Candidate], trust: TrustOptions, settings: Settings, output: Output) -> Anchor:
    """The root that is trusted for all of `candidates`.

    What is pinned for any of them goes before what is trusted on first use. Raises Untrusted when none is pinned, and what the
    sources raised if none could be asked.
    """
    pinned = trust.root_keys or (Path(settings.root_keys) if settings.root_keys else None)
    if pinned is not None and not trust.insecure:
        return Anchor(read_root(pinned), Mode.PINNED)
    finding = _Finding(trust, output)
    errors: dict[str, PacballError] = {}
    for find in (finding.shown,) if trust.insecure else (finding.known, finding.remembered, finding.new):
        for candidate in candidates:
            try:
                anchor = find(candidate)
            except PacballError as error:
                if find == finding.remembered:
                    raise  # it is what this machine remembers that is damaged
                errors[candidate.source.name] = error
            else:
                if anchor is not None:
                    return anchor
    untrusted = [error for error in errors.values() if isinstance(error, Untrusted)]
    raise untrusted[0] if untrusted else all_failed("the root of the catalog", errors)


def check_shown(candidate: Candidate, anchor: Anchor, trust: TrustOptions) -> None:
    """Raise Untrusted unless the source shows the root that is trusted: then it is of the same catalog.

    Raises what `source.read` does. Where the root is trusted on first use, so is it for this source from now on.
    """
    source, version = candidate.source, verify_root(anchor.root).version
    try:
        path = document_path(DocumentKind.CATALOG, file_name("root", version))
        same = source.read(path, limit=METADATA_LIMITS.root_bytes) == anchor.root
    except NotFound:
        same = False
    if not same:
        message = f"shows another root than the one that is trusted (version {version}, fingerprint {fingerprint(anchor.root)})"
        hint = "it has another catalog, or lies: leave it out, or name it alone"
        raise Untrusted(message, place=source.name, hint=hint)
    if trust.on_first_use and anchor.mode is Mode.FIRST_USE:
        Pins(state_dir() / "pins").remember(candidate.pin_name, anchor.root)


class _Finding:
    """The ways in which a root may be found. What is wrong with what this machine has pinned is an error whoever is asked."""

    def __init__(self, trust: TrustOptions, output: Output) -> None:
        self._trust = trust
        self._output = output
        self._directories = roots_dirs()
        self._pins = [] if trust.insecure else read_pins(self._directories)
        self._first_use = Pins(state_dir() / "pins")

    def shown(self, candidate: Candidate) -> Anchor:
        """The root that the source shows."""
        source = candidate.source
        root = fetch_root(source)
        self._output.warn(
            f"--insecure: {source.name} itself says which root to trust (fingerprint {fingerprint(root)}); "
            "not checked are who signed the catalog, whether it has expired, and whether it is older than one seen before"
        )
        return Anchor(root, Mode.INSECURE)

    def known(self, candidate: Candidate) -> Anchor | None:
        """The root that is pinned for a source, or that it vouches for itself."""
        pin = find_pin(candidate.source, self._pins)
        if pin is not None:
            return Anchor(pin.root, Mode.PINNED)
        if candidate.store is not None and not candidate.others:
            return Anchor(fetch_root(candidate.source), Mode.LOCAL)
        return None

    def remembered(self, candidate: Candidate) -> Anchor | None:
        """The root that was trusted on first use before."""
        root = self._first_use.recall(candidate.pin_name)
        return Anchor(root, Mode.FIRST_USE) if root is not None else None

    def new(self, candidate: Candidate) -> Anchor:
        """The root that the source shows, trusted from now on if the user says so."""
        source = candidate.source
        root = fetch_root(source)
        if not self._trust.on_first_use:
            raise _not_pinned(source, root, self._directories, candidate.others)
        self._first_use.remember(candidate.pin_name, root)
        self._output.note(
            f"pacball: trusting {candidate.scope or source.name} from now on; compare its fingerprint: {fingerprint(root)}"
        )
        return Anchor(root, Mode.FIRST_USE)


def read_root(path: Path) -> bytes:
    """The root in a file that the user names. Raises NotFound, and Refused for what is no root."""
    data = private.read(path, limit=METADATA_LIMITS.root_bytes)
    if data is None:
        raise NotFound("does not exist", place=str(path), hint="give the root.json of the catalog")
    return check_root(data, place=str(path))


def _not_pinned(source: Source, root: bytes, directories: list[Path], others: str) -> Untrusted:
    listed = ", ".join(map(str, directories))
    reasons = [f"its first root has the fingerprint {fingerprint(root)}"]
    if directories:
        reasons.append(f"none of the pinned roots in {listed} is one of this source")
    if others:
        reasons.append(f"it cannot vouch for itself, because {others}")
    hint = (
        "compare the fingerprint with what its operator publishes; then give --root-keys FILE, the root.json from there, "
        f"or put that file into {directories[-1] if directories else 'a directory of pinned roots'}; or give "
        "--trust-on-first-use"
    )
    return Untrusted(f"no root is pinned for this source: {'; '.join(reasons)}", place=source.name, hint=hint)
