"""Storages: the RSEs that have replicas, each as a source that only has the files whose URLs are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarl import URL

from pacmirror.delivery.rucio.replicas import base_of
from pacmirror.source import HttpSource
from pacstore.digest import Digest
from pacstore.errors import NotFound, PacballError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pacmirror.delivery.rucio.replicas import Endpoint, Replicas
    from pacmirror.limits import ClientLimits
    from pacmirror.surroundings import Surroundings
    from pacmirror.throttle import Throttle


def open_storages(
    replicas: Replicas,
    *,
    place: str,
    limits: ClientLimits,
    surroundings: Surroundings | None = None,
    throttle: Throttle | None = None,
) -> list[HttpSource]:
    """A source for each endpoint, which gives what it has by digest, under the path of a pack whatever it is.

    One that cannot be asked from here, because of a proxy or token, is left out. Raises Unavailable, about `place`, where none
    is left.
    """
    storages: list[HttpSource] = []
    reasons = [replicas.why_none()] if replicas.passed_over else []
    for endpoint in replicas.endpoints():
        paths = replicas.at[endpoint]
        try:
            storage = HttpSource(
                base_of(endpoint, paths.values()), limits=limits, throttle=throttle, surroundings=surroundings,
                name=endpoint.name, locate=_locating(endpoint, paths)
            )  # fmt: skip
        except PacballError as error:
            reasons.append(f"{endpoint.name}: {error.message}")
        else:
            storages.append(storage)
    if not storages:
        message = "no replica of it can be had over HTTP" + (f": {'; '.join(reasons)}" if reasons else "")
        hint = "see rucio list-file-replicas, or name another RSE expression or a URL beside it"
        raise Unavailable(message, place=place, hint=hint)
    return storages


def _locating(endpoint: Endpoint, paths: Mapping[Digest, str]) -> Callable[[str], URL]:
    def locate(path: str) -> URL:
        there = paths.get(Digest.parse(path.rpartition("/")[2]))
        if there is None:
            raise NotFound("has no replica of it", place=f"{endpoint.name}: {path}")
        return URL(f"{endpoint.origin}{there}", encoded=True)

    return locate
