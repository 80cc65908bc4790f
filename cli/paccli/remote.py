"""Publishing to a URL: what `pacball publish --to URL` has that a store at hand has not."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

from paccli.network import limits_of, surroundings_of
from paccli.options import TrustOptions
from paccli.output import Output
from paccli.places import state_dir
from paccli.progress import showing
from paccli.rings import ROOT_FILE, open_ring
from paccli.settings import load_settings
from paccli.sources import opening
from pacmirror.base_url import parse_base_url
from pacmirror.uploads.client import HttpOrigin
from pacstore.outgoing.authoring import LineCopy
from pacstore.outgoing.publishing import PublishedThere, publish_there
from pacstore.packing import PackingOptions
from pacstore.release import Release

_ATTEMPTS = 8
"""A publish is long: a line that is dead for some seconds must not end it."""


def publish_to_url(
    source: Path,
    release: Release,
    url: str,
    *,
    keys: Path | None,
    passphrase_file: Path | None,
    root_keys: Path | None,
    options: PackingOptions,
    output: Output,
    quiet: bool,
    work: Path | None,
    keep_stream: bool,
) -> PublishedThere:
    """Publish the directory or archive `source` at the origin `url`, with the line's key in `keys`, the user's own by default.

    What is sent lies in the directory `work` meanwhile, by default in one of the user's state.
    """
    base, settings, ring = parse_base_url(url), load_settings(), open_ring(keys, passphrase_file)
    if root_keys is None and (ring.directory / ROOT_FILE).exists():
        root_keys = ring.directory / ROOT_FILE
    limits = limits_of(settings)
    limits = replace(limits, attempts=settings.attempts or max(limits.attempts, _ATTEMPTS))
    with (
        HttpOrigin(base, limits=limits, surroundings=surroundings_of(settings)) as origin,
        opening([base], TrustOptions(root_keys, on_first_use=False), output) as opened,
        showing(output, quiet=quiet) as shown,
    ):

        def copy() -> LineCopy:
            pinned, least = opened.anchor.root, opened.catalog.version
            return LineCopy(opened.source, release, origin.pending(release), pinned=pinned, least=least)

        return publish_there(
            source,
            release,
            origin,
            copy,
            keys=ring,
            options=options,
            progress=shown,
            now=time.time,
            work=work or _work_dir(base, release),
            keep_stream=keep_stream,
        )


def _work_dir(base: str, release: Release) -> Path:
    name = hashlib.sha256(f"{base}\n{release}".encode()).hexdigest()[:16]
    return state_dir() / "publishing" / f"{release}-{name}"
