"""TLS of clients: always verified, host names included, never older than 1.2; with certificate authorities of the site's own."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from pacstore.durable import wrapped
from pacstore.errors import Refused, printable

_HINT = "give a file of certificates in PEM, as the operator of the proxy or of the certificate authority has it"
_VARIABLES = {"SSL_CERT_FILE": Path.is_file, "SSL_CERT_DIR": Path.is_dir}


def make_context(ca_file: Path | None) -> ssl.SSLContext:
    """A context that trusts the authorities of the system, or those that SSL_CERT_FILE and SSL_CERT_DIR name, and `ca_file`'s.

    Raises Refused for one of them that names nothing, or no certificates: it would be passed over in silence, and every
    server be called untrusted. Raises NotFound or Unavailable for a `ca_file` that cannot be read.
    """
    for variable, is_right in _VARIABLES.items():
        named = os.environ.get(variable)
        # SSL_CERT_DIR may have several, of which some are often missing.
        places = named.split(os.pathsep) if named and variable == "SSL_CERT_DIR" else [named] if named else []
        if places and not any(is_right(Path(place)) and os.access(place, os.R_OK) for place in places):
            message = f"{variable} names nothing that can be read"
            raise Refused(message, place=printable(named or ""), hint="correct or unset it")
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        _add(context, ca_file)
    return context


def _add(context: ssl.SSLContext, ca_file: Path) -> None:
    with wrapped(ca_file):
        ca_file.open("rb").close()
    try:
        context.load_verify_locations(ca_file)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise Refused("holds no certificates that can be used", place=str(ca_file), hint=_HINT) from error
