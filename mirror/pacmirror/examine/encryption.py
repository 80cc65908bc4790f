"""Encryption: whether TLS can be begun with a source, which version, and until when its certificate is good."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from pacmirror.reasons import tls_error
from pacstore.errors import Unavailable, printable
from pacstore.finding import Finding, Level, failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from yarl import URL

    from pacmirror.examine.examination import Examination

_SOON_SECONDS = 14 * 86_400.0
_HEAD_BYTES = 16_384
_ASKS_WHO = "it wants a user and password: https_proxy, or [proxy] in config.toml: http://USER:PASSWORD@HOST:PORT"


async def examine_tls(one: Examination, now: float) -> list[Finding]:
    """Begin TLS, verified as always; where that fails, say what certificate was shown. Nothing for plain http."""
    context, proxy = one.access.context, one.access.route.proxy
    if one.url.scheme != "https" or context is None:
        return []
    if proxy is not None and proxy.scheme == "https":
        return [Finding("tls", Level.SKIP, "not examined alone, since the proxy is spoken to in TLS as well")]
    try:
        async with _connected(one, context) as encrypted:
            return [_accepted(one, encrypted, now)]
    except ssl.SSLError as error:
        finding = failed("tls", tls_error(error, place=str(one.url.origin())))
        return [finding, *await _shown(one)]


@contextlib.asynccontextmanager
async def _connected(one: Examination, context: ssl.SSLContext) -> AsyncIterator[ssl.SSLObject]:
    """A TLS connection with the source, through the proxy if there is one."""
    host, port = one.next_hop
    reader, writer = await asyncio.open_connection(host, port)
    try:
        if one.access.route.proxy is not None:
            await _tunnel(one.access.route.proxy, one.url, reader, writer)
        await writer.start_tls(context, server_hostname=one.url.host)
        encrypted = writer.get_extra_info("ssl_object")
        yield encrypted
    finally:
        writer.transport.abort()


async def _tunnel(proxy: URL, url: URL, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host
    lines = [f"CONNECT {host}:{url.port} HTTP/1.1", f"Host: {host}:{url.port}"]
    if proxy.user is not None:
        pair = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {pair}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unavailable(f"the proxy {proxy.origin()} did not answer in HTTP", place=str(url)) from error
    status = head[:_HEAD_BYTES].split(b"\r\n")[0].decode("latin-1")
    code = "".join(status.split(" ")[1:2])
    if code != "200":
        hint = _ASKS_WHO if code in ("401", "407") else "ask who runs it to allow this, or name the host in no_proxy"
        raise Unavailable(f"the proxy {proxy.origin()} answered '{printable(status[:80])}'", place=str(url), hint=hint)


def _accepted(one: Examination, encrypted: ssl.SSLObject, now: float) -> Finding:
    certificate = encrypted.getpeercert() or {}
    expires = ssl.cert_time_to_seconds(str(certificate.get("notAfter", "")))
    days = (expires - now) / 86_400
    issuer = _issuer(certificate)
    values = {"version": encrypted.version(), "issuer": issuer, "expires": int(expires), "days": round(days, 1)}
    signer = issuer or "an unnamed authority"
    message = f"{encrypted.version()}, verified; the certificate is signed by {signer}, good for {days:.0f} days"
    if expires - now < _SOON_SECONDS:
        return Finding("tls", Level.WARN, message, f"tell the operator of {one.url.host} that it expires soon", values)
    return Finding("tls", Level.OK, message, values=values)


def _issuer(certificate: dict[str, Any]) -> str:
    names = {key: value for part in certificate.get("issuer", ()) for key, value in part}
    return printable(str(names.get("organizationName") or names.get("commonName") or ""))[:200]


async def _shown(one: Examination) -> list[Finding]:
    """Which certificate was shown that is not accepted. Nothing but this is done with the unverified connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with _connected(one, context) as encrypted:
            data = encrypted.getpeercert(binary_form=True) or b""
        certificate = x509.load_der_x509_certificate(data)
    except (OSError, ValueError, Unavailable):
        return []
    subject, issuer = certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()
    expires = certificate.not_valid_after_utc
    values = {"subject": subject, "issuer": issuer, "names": _names(certificate), "expires": int(expires.timestamp())}
    message = (
        f"the certificate shown is of {', '.join(_names(certificate)) or subject}, signed by {issuer}, "
        f"valid until {expires:%Y-%m-%d}"
    )
    return [Finding("tls", Level.WARN, printable(message), "compare it with what you expect", values)]


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [printable(str(name.value))[:200] for name in names][:10]  # type: ignore[attr-defined]
