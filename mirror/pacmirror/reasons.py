"""Reasons: what went wrong between this machine and a source, in words, and what to do about it.

Refused is what does not get better by itself (certificates, proxies that want a password, the wrong protocol), so that it is
not tried again; Unavailable is all that may pass.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

import aiohttp

from pacstore.errors import PacballError, Refused, Unavailable, printable

_CLOCK = "check the clock of this machine; if it is right, tell the operator of the server"
_AUTHORITY = (
    "if it is the authority of the site, or a proxy that looks into TLS, name its certificate: ca_file in config.toml"
)
_PROXY = "check https_proxy and http_proxy, or [proxy] in config.toml"
_NAME = "use the name that is in the certificate, or tell the operator of the server"
_VERIFY = {
    9: ("shows a certificate that is not valid yet", _CLOCK),
    10: ("shows a certificate that has expired", _CLOCK),
    18: ("shows a certificate that only it itself has signed", _AUTHORITY),
    19: ("shows a certificate of an authority that is not trusted here", _AUTHORITY),
    20: ("shows a certificate of an authority that is not trusted here", _AUTHORITY),
    21: ("shows a certificate of an authority that is not trusted here", _AUTHORITY),
    62: ("shows a certificate of another name", _NAME),
    64: ("shows a certificate of another address", _NAME),
}
"""By OpenSSL's X509_V_ERR_*: what is the matter, and what to do."""
_SLOW = "the line, or the server, is very slow or overloaded"
_SILENT = "it, or something between, accepts connections and is silent: tell its operator"
_NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"}
)
_OLD_TLS = frozenset(
    {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "WRONG_SSL_VERSION", "NO_PROTOCOLS_AVAILABLE"}
)
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_ADDRESS = "check the URL, and the name servers of this machine"


def explain(error: Exception, *, place: str, proxy: str = "") -> PacballError:
    """`error`, of aiohttp or the operating system, as one of ours. `proxy`: the one that was used, without its password."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _by_proxy(error.status, place, proxy)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return certificate_error(error.certificate_error, place=place)
    # Names of sources are not looked up here where there is a proxy: only its own is.
    if isinstance(error, aiohttp.ClientProxyConnectionError) or (
        proxy and isinstance(error, aiohttp.ClientConnectorDNSError)
    ):
        return Unavailable(f"the proxy {proxy} {connecting(error.os_error)[0]}", place=place, hint=_PROXY)
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, ssl.SSLError):
            return tls_error(error.os_error, place=place)
        message, hint = connecting(error.os_error)
        return Unavailable(message, place=place, hint=hint)
    if isinstance(error, ssl.SSLError):
        return tls_error(error, place=place)
    return _while_talking(error, place)


def _while_talking(error: Exception, place: str) -> PacballError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unavailable(
            "does not answer a connection", place=place, hint="a firewall may drop it: check the network"
        )
    if isinstance(error, aiohttp.SocketTimeoutError):
        return Unavailable("has sent nothing for a long time", place=place, hint=_SILENT)
    if isinstance(error, TimeoutError):
        return Unavailable("answered too slowly", place=place, hint=_SLOW)
    if isinstance(error, aiohttp.ClientPayloadError):
        return Unavailable("the connection ended before the body did", place=place)
    if isinstance(error, aiohttp.ServerDisconnectedError | OSError):
        return Unavailable("the connection was lost", place=place)
    if isinstance(error, aiohttp.ClientResponseError):
        hint = "if its port speaks TLS, write https://" if place.startswith("http://") else ""
        return Unavailable("did not answer in HTTP", place=place, hint=hint)
    return Unavailable(f"did not answer in HTTP ({type(error).__name__})", place=place)


def connecting(error: OSError) -> tuple[str, str]:
    """Why there is no connection, as a clause that follows the name of the server, and what to do."""
    if isinstance(error, socket.gaierror):
        if error.errno in _NO_SUCH_NAME:
            return "has a name for which no address is known", _ADDRESS
        return "has a name that cannot be looked up now", "check the name servers of this machine (/etc/resolv.conf)"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError):
        return "closes every connection at once", "a firewall may do that, or it allows only some to connect"
    number = error.errno or 0
    text = os.strerror(number).lower() if number > 0 else printable(str(error))
    hint = {
        errno.ECONNREFUSED: "nothing listens there: check the URL and its port, or tell its operator",
        errno.ENETUNREACH: "this machine has no route to it: check its network",
        errno.EHOSTUNREACH: "there is no route to it: check the network",
        errno.ETIMEDOUT: "a firewall may drop it: check the network",
        errno.EACCES: "a firewall of this machine forbids it",
        errno.EPERM: "a firewall of this machine forbids it",
    }.get(number, "")
    return f"cannot be connected to: {text}", hint


def certificate_error(error: Exception, *, place: str) -> PacballError:
    """That the server's certificate is not accepted."""
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    message, hint = _VERIFY.get(code, ("shows a certificate that is not accepted", _AUTHORITY))
    said = getattr(error, "verify_message", "") or str(error)
    return Refused(f"{message} ({said})", place=place, hint=hint)


def tls_error(error: ssl.SSLError, *, place: str) -> PacballError:
    """That TLS could not be begun."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return certificate_error(error, place=place)
    reason = error.reason or ""
    if reason in _NO_TLS:
        return Refused(
            "does not speak TLS on this port", place=place, hint="write http://, or the port that speaks TLS"
        )
    if reason in _OLD_TLS:
        hint = "TLS 1.2 or newer is needed: tell its operator"
        return Refused("offers only TLS that is too old to be safe", place=place, hint=hint)
    words = reason.lower().replace("_", " ") or str(error)
    return Unavailable(f"TLS could not be begun: {words}", place=place)


def _by_proxy(status: int, place: str, proxy: str) -> PacballError:
    if status in (401, 407):  # tinyproxy means 407, and says 401
        hint = "write them into https_proxy, or [proxy] in config.toml: http://USER:PASSWORD@HOST:PORT"
        return Refused(f"the proxy {proxy} wants another user and password (status {status})", place=place, hint=hint)
    if status in (403, 405):
        hint = "ask who runs the proxy to allow it, or name the host in no_proxy if it can be reached directly"
        return Refused(f"the proxy {proxy} does not let us through to it (status {status})", place=place, hint=hint)
    return Unavailable(f"the proxy {proxy} could not connect to it (status {status})", place=place)
