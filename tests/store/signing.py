"""For the tests of keys: whoever gives passphrases, and what must hold for signers and errors."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from securesystemslib.signer import Key, Signer

SECRET = "four unusual words, \u00fcmlaut"
DATA = b"what is signed"
PLAIN = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Secrets:
    """Answers with one passphrase, and notes for which keys it was asked."""

    def __init__(self, answer: str = SECRET) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, name: str) -> str:
        self.asked.append(name)
        return self.answer


def works(signer: Signer, public: Key | None = None) -> bool:
    """Whether the signer signs for this public key, or for its own; raises if not."""
    (public or signer.public_key).verify_signature(signer.sign(DATA), DATA)
    return True


def assert_silent(error: BaseException, secret: str) -> None:
    """Neither the error nor what it came from tells the secret."""
    seen = [error]
    while seen:
        error = seen.pop()
        assert secret not in f"{error} {error!r} {vars(error)}"
        seen += [cause for cause in (error.__cause__, error.__context__) if cause is not None]
