"""Storage elements of Rucio that are a pacball daemon, or a web server over a store's docroot: how Rucio's clients read there.

Rucio knows a storage element's protocol by the name of a class, its "impl":

    pacmirror.delivery.rucio.protocol.Default   URLs by the storage element's own algorithm, as Rucio's stock classes make them
    pacmirror.delivery.rucio.protocol.Docroot   the paths of a store, which every web server over its docroot has

Clients and the Rucio server must be able to import it. It needs nothing of pacball: this file alone is enough, wherever it is.
Over Rucio's stock classes it has: http and https without a certificate of the client; a download that goes on where the
connection broke, for as long as something comes, within the time that Rucio gives it; and a file that is short is never under its
name. Rucio compares the checksums then. Reading is all that it does: files are put there by pacball alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import requests
from rucio.common import exception
from rucio.rse.protocols import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_OBJECT = re.compile(r"(([0-9a-f]{2})[0-9a-f]{62})\.(pack|manifest|bundle)\Z")
_PACBALL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.b3-[0-9a-f]{64}\.sh\Z")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)\Z")
_PIECE_BYTES = 1 << 16
_CONNECT_SECONDS = 15.0
_SILENCE_SECONDS = 60.0
_PAUSE_SECONDS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
"""Before each new try: the first after one in which something came. A daemon that is restarted is back within them."""
_MOST_PAUSE_SECONDS = 30.0
_MOST_TRIES = 200
_MOST_REDIRECTS = 5
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class Default(protocol.RSEProtocol):  # type: ignore[misc]
    """Reads over http and https. Raises exceptions of Rucio, which name the URL and what is the matter."""

    def connect(self, credentials: dict[str, Any] | None = None) -> None:
        """Make ready; the server is not asked yet. `credentials` may have `ca_cert`, a file or directory of authorities."""
        self._session = requests.Session()
        self._session.max_redirects = _MOST_REDIRECTS
        self._session.headers["Accept-Encoding"] = "identity"
        # As a setting of the session, what the environment says would come before it.
        self._verify = (credentials or {}).get("ca_cert") or _authorities()

    def close(self) -> None:
        """Close what is open."""
        self._session.close()

    def path2pfn(self, path: str) -> str:
        """The URL of a path below the storage element's prefix; a URL is what it is."""
        if path.startswith(("http://", "https://")):
            return path
        at = self.attributes
        prefix = "/" + at["prefix"].strip("/")
        return f"{at['scheme']}://{at['hostname']}:{at['port']}{prefix.rstrip('/')}/{path.lstrip('/')}"

    def exists(self, path: str) -> bool:
        """Whether the file is there. Raises ServiceUnavailable or SourceAccessDenied where that is not known."""
        try:
            self.stat(path)
        except exception.SourceNotFound:
            return False
        return True

    def stat(self, path: str) -> dict[str, Any]:
        """`filesize`, in bytes. Raises SourceNotFound, SourceAccessDenied or ServiceUnavailable."""
        url = self.path2pfn(path)
        with (
            _asked(url),
            self._session.head(url, allow_redirects=True, timeout=_timeout(None), verify=self._verify) as answer,
        ):
            _check_status(answer, url)
            length = answer.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit():
                raise exception.ServiceUnavailable(f"{url}: the server does not say how long the file is")
            return {"filesize": int(length)}

    def get(self, pfn: str, dest: str = ".", transfer_timeout: float | None = None) -> None:
        """Write the file to `dest`, within `transfer_timeout` seconds if that is given.

        Raises SourceNotFound, SourceAccessDenied, ServiceUnavailable, or DestinationNotAccessible. Then `dest` is as it was.
        """
        url = self.path2pfn(pfn)
        part = f"{dest}.incoming"
        end = None if transfer_timeout is None else time.monotonic() + float(transfer_timeout)
        try:
            with _written(dest):
                with open(part, "wb") as file:
                    _Download(self._session, url, file, self._verify, end).run()
                os.replace(part, dest)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)

    def put(self, *_arguments: object, **_options: object) -> None:
        """Refused."""
        _refuse("upload", "releases come to an origin by `pacball publish`, and into Rucio by `pacball rucio register`")

    def delete(self, *_arguments: object, **_options: object) -> None:
        """Refused."""
        _refuse("delete", "`pacball rucio agent` at the site deletes what no rule keeps there")

    def rename(self, *_arguments: object, **_options: object) -> None:
        """Refused."""
        _refuse("rename", "files are named by what is in them")


class Docroot(Default):
    """The same, at the paths of a store: for web servers that have no `/rucio/`, and any `lfn2pfn_algorithm`."""

    def __init__(self, protocol_attr: dict[str, Any], rse_settings: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(protocol_attr, rse_settings, *args, **kwargs)
        self.attributes.pop("determinism_type", None)  # its paths are not those of other storage elements

    def _get_path(self, scope: str, name: str) -> str:
        if match := _OBJECT.match(name):
            return f"{match[3]}s/{match[2]}/{match[1]}"
        if _PACBALL.match(name):
            return f"pacballs/{name}"
        raise exception.RSEFileNameNotSupported(f"{scope}:{name} is no file of a pacball store")


class _Broken(Exception):
    """It may go better the next time, in `pause` seconds if the server said so."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class _Download:
    """One file on its way: `written` bytes are in `file`, of the version of the file that `etag` names."""

    def __init__(
        self, session: requests.Session, url: str, file: BinaryIO, verify: str | bool, end: float | None
    ) -> None:
        self._session, self._url, self._file, self._verify, self._end = session, url, file, verify, end
        self._written = 0
        self._etag = ""

    def run(self) -> None:
        """Return when the file is whole."""
        furthest = idle = 0
        for _ in range(_MOST_TRIES):
            try:
                self._try()
            except _Broken as broken:
                idle = 0 if self._written > furthest else idle + 1
                furthest = max(furthest, self._written)
                if idle == len(_PAUSE_SECONDS):
                    self._give_up(str(broken))
                pause = _PAUSE_SECONDS[idle]
                self._wait(max(pause, min(broken.pause, _MOST_PAUSE_SECONDS)), str(broken))
            else:
                return
        self._give_up("the connection breaks too often")

    def _try(self) -> None:
        headers = {"Range": f"bytes={self._written}-", "If-Range": self._etag} if self._written and self._etag else {}
        timeout = _timeout(self._left())
        with (
            _asked(self._url, passing=True),
            self._session.get(self._url, headers=headers, stream=True, timeout=timeout, verify=self._verify) as answer,
        ):
            if answer.status_code == 416:
                self._etag = ""  # it has become shorter
                raise _Broken("the file has changed")
            _check_status(answer, self._url)
            total = self._begin(answer)
            for piece in _pieces(answer):
                self._file.write(piece)
                self._written += len(piece)
                self._left()
        if total is not None and self._written != total:
            raise _Broken(f"{self._written} of {total} bytes came")

    def _begin(self, answer: requests.Response) -> int | None:
        """The whole length, if the server says it. What is written stays only if `answer` goes on from there."""
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise exception.ServiceUnavailable(f"{self._url}: the server, or a proxy, sends the file encoded")
        length = answer.headers.get("Content-Length")
        if answer.status_code == 206:
            said = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
            if said is None or int(said[1]) != self._written:
                self._etag = ""
                raise _Broken("the server sends another part than was asked for")
            return int(said[3])
        self._file.seek(0)
        self._file.truncate()
        self._written = 0
        etag = answer.headers.get("ETag", "")
        self._etag = etag if etag.startswith('"') else ""  # only by a strong one parts belong together
        return int(length) if length is not None and length.isdigit() else None

    def _left(self) -> float | None:
        """The seconds that are left. Raises ServiceUnavailable if none are."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            self._give_up("the time is over")
        return left

    def _wait(self, seconds: float, why: str) -> None:
        left = self._left()
        if left is not None and left <= seconds:
            self._give_up(why)
        time.sleep(seconds)

    def _give_up(self, why: str) -> NoReturn:
        raise exception.ServiceUnavailable(f"{self._url}: {why} (after {self._written} bytes)")


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(_PIECE_BYTES)
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError) as error:
        raise _Broken("the connection broke") from error


@contextlib.contextmanager
def _asked(url: str, *, passing: bool = False) -> Iterator[None]:
    """Around a request: what `requests` raises becomes Rucio's; what may pass becomes _Broken, where there are more tries."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise exception.ServiceUnavailable(f"{url}: the server's certificate is not trusted here: {error}") from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        if passing:
            raise _Broken(f"the server does not answer: {type(error).__name__}") from error
        raise exception.ServiceUnavailable(f"{url}: the server does not answer: {error}") from error
    except requests.exceptions.RequestException as error:
        raise exception.ServiceUnavailable(f"{url}: {error}") from error
    except _Broken as broken:
        if passing:
            raise
        raise exception.ServiceUnavailable(f"{url}: {broken}") from broken


@contextlib.contextmanager
def _written(dest: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise exception.DestinationNotAccessible(f"{dest}: {error.strerror or error}") from error


def _check_status(answer: requests.Response, url: str) -> None:
    if url.startswith("https:") and any(not one.url.startswith("https:") for one in (*answer.history, answer)):
        raise exception.ServiceUnavailable(f"{url}: the server sends us to an address without TLS")
    status = answer.status_code
    if status in (200, 206):
        return
    if status in (404, 410):
        raise exception.SourceNotFound(f"{url}: is not there")
    if status in (401, 403):
        raise exception.SourceAccessDenied(f"{url}: the server wants a token, or forbids it to all ({status})")
    if status in _PASSING:
        after = answer.headers.get("Retry-After", "")
        raise _Broken(f"the server answers {status}", float(after) if after.isascii() and after.isdigit() else 0.0)
    host = urlsplit(url).netloc
    raise exception.ServiceUnavailable(f"{url}: {host} answers {status} {answer.reason}")


def _authorities() -> str | bool:
    """Where the certificates of authorities are, of the grid or of this machine; True: those that `requests` knows."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("X509_CERT_DIR") or True


def _timeout(left: float | None) -> tuple[float, float]:
    if left is None:
        return _CONNECT_SECONDS, _SILENCE_SECONDS
    return min(_CONNECT_SECONDS, left), min(_SILENCE_SECONDS, left)


def _refuse(verb: str, instead: str) -> NoReturn:
    raise exception.RSEOperationNotSupported(f"a pacball store is not changed by Rucio ({verb}): {instead}")
