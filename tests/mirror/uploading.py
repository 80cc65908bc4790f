"""An origin that takes releases, tokens for it, and requests made by hand."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pacmirror.config import AccessConfig, UploadConfig
from pacmirror.limits import ServerLimits, UploadLimits
from pacmirror.token_file import create_token
from pacstore.digest import Digest
from pacstore.trust.ceremony import Keys
from tests.mirror.daemons import Daemon, running
from tests.store.outgoing import pack_of
from tests.store.releases import NOW, Origin, noise

RELEASE = "Demo-1.0-x"
PIECE = "application/partial-upload"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def offset(self) -> int:
        return int(self.headers["upload-offset"])


@dataclass
class Client:
    """Somebody with a token, or none."""

    daemon: Daemon
    token: str = ""
    release: str = RELEASE
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """The answer to one request; `_` in the names of headers stands for `-`."""
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(*self.daemon.address, timeout=60)
        try:
            connection.request(method, path, body=body, headers={**own, **self.headers, **given})
            answer = connection.getresponse()
            return Answer(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def publication(self, method: str = "POST", what: str = "", body: bytes | None = None, **headers: str) -> Answer:
        return self.ask(method, f"/v1/publications/{self.release}{what}", body, **headers)

    def upload(self, digest: Digest | str, kind: str = "packs") -> str:
        return f"/v1/publications/{self.release}/uploads/{kind}/{digest if isinstance(digest, str) else digest.hex}"

    def create(self, digest: Digest | str, length: int, kind: str = "packs") -> Answer:
        return self.ask("POST", self.upload(digest, kind), Upload_Length=str(length), Upload_Complete="?0")

    def look(self, digest: Digest, kind: str = "packs") -> Answer:
        return self.ask("HEAD", self.upload(digest, kind))

    def append(self, digest: Digest, data: bytes, offset: int, *, last: bool, kind: str = "packs") -> Answer:
        headers = {"Upload_Offset": str(offset), "Upload_Complete": "?1" if last else "?0", "Content_Type": PIECE}
        return self.ask("PATCH", self.upload(digest, kind), data, **headers)

    def patch_head(self, digest: Digest, length: int) -> bytes:
        """The header of a request with all of an upload of `length` bytes."""
        lines = [
            f"PATCH {self.upload(digest)} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {self.token}",
            "Upload-Offset: 0",
            "Upload-Complete: ?1",
            f"Content-Type: {PIECE}",
            f"Content-Length: {length}",
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def send(self, digest: Digest, data: bytes, kind: str = "packs") -> Answer:
        """All of an object in one piece."""
        assert self.create(digest, len(data), kind).status in (200, 201)
        return self.append(digest, data, 0, last=True, kind=kind)

    def missing(self, *ids: bytes) -> Answer:
        return self.publication("POST", "/missing", b"".join(ids))


@dataclass
class Taking:
    """A daemon that takes releases of the line Demo, its store, and its tokens' file."""

    daemon: Daemon
    origin: Origin
    file: Path
    made: int = 0

    def client(self, role: str = "publish", lines: tuple[str, ...] = ("Demo",), expires: int | None = None) -> Client:
        self.made += 1
        lines = lines if role == "publish" else ()
        _, text = create_token(self.file, name=f"t{self.made}", role=role, now=0, expires=expires, lines=lines)
        return Client(self.daemon, text)

    def status(self) -> dict:
        return self.daemon.status()["uploads"]

    def spooled(self) -> list[Path]:
        return sorted(path for path in (self.origin.store.private / "uploads").rglob("*") if path.is_file())


def begun_origin(top: Path) -> Origin:
    """An origin whose line Demo was begun, and has no release yet."""
    origin = Origin.make(top)
    origin.catalog.add_line("Demo", Keys((origin.keys.create("line-Demo"),)), origin.keys, now=NOW)
    return origin


@contextlib.contextmanager
def taking(
    top: Path, *, origin: Origin | None = None, uploads: UploadConfig | None = None, limits: UploadLimits | None = None,
    **options: object,
) -> Iterator[Taking]:  # fmt: skip
    """A daemon that takes releases, and commits them."""
    origin = origin or begun_origin(top / "origin")
    file = top / "tokens"
    create_token(file, name="first", role="read", now=0, expires=None) if not file.exists() else None
    access = AccessConfig(token_file=file)
    uploads = replace(uploads or UploadConfig(reserve_bytes=1), enabled=True)
    server = ServerLimits(uploads=limits or UploadLimits())
    options = {"online_keys": origin.keys.directory, **options}
    with (
        pytest.MonkeyPatch.context() as patch,
        running(origin.store.path, server, access=access, uploads=uploads, **options) as daemon,
    ):
        patch.setattr("pacmirror.access.TOKENS_SECONDS", 0.0)
        yield Taking(daemon, origin, file)


def sample(seed: str = "x", size: int = 5000) -> tuple[Digest, bytes]:
    """An honest pack of a chunk of noise."""
    return pack_of(noise(seed, size))
