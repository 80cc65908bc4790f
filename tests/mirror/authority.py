"""Certificate authorities and certificates, made for a test."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Authority:
    """An authority whose certificate is in `ca_file`; what it issues is in the same directory."""

    directory: Path
    name: str = "The site's own authority"

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._build(self.name, self._key.public_key(), authority=True)
        self.ca_file = self.directory / "ca.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def _build(self, name, public_key, *, authority=False, names=(), begins=-1, ends=30):
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + begins * DAY)
            .not_valid_after(NOW + ends * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def serve(self, *hosts: str, begins: int = -1, ends: int = 30) -> ssl.SSLContext:
        """A server's context with a certificate for `hosts`, valid from and until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(hosts[0], key.public_key(), names=map(_general, hosts), begins=begins, ends=ends)
        path = self.directory / f"{hosts[0].replace(':', '_')}{begins}{ends}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def self_signed(directory: Path, host: str) -> ssl.SSLContext:
    """A server's context with a certificate that nobody else has signed."""
    lonely = Authority(directory, name=host)
    private = lonely._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = lonely._build(host, lonely._key.public_key(), names=[_general(host)])
    (directory / "self.pem").write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "self.pem")
    return context
