"""What the errors of Rucio's client mean to us: which of them pass by themselves, and which kind each of the others is."""

from __future__ import annotations

from requests import exceptions as http
from rucio.common import exception as rucio

from pacstore.errors import NotFound, PacballError, Refused, Unavailable, printable

_ABSENT = (
    rucio.DataIdentifierNotFound,
    rucio.ScopeNotFound,
    rucio.RSENotFound,
    rucio.ReplicaNotFound,
    rucio.RuleNotFound,
    rucio.AccountNotFound,
)
_PASSING = (
    rucio.ServerConnectionException,
    rucio.DatabaseException,
    rucio.ServiceUnavailable,
    rucio.ResourceTemporaryUnavailable,
    rucio.ReplicationRuleCreationTemporaryFailed,
    # Two who add the same at the same moment; whoever comes second finds it there.
    rucio.Duplicate,
    rucio.DataIdentifierAlreadyExists,
    rucio.FileAlreadyExists,
)
_NO_CLIENT = (rucio.ConfigNotFound, rucio.MissingClientParameter, rucio.NoAuthInformation, rucio.ClientProtocolNotFound)
_MESSAGE_CHARACTERS = 500
KNOWN = (rucio.RucioException, http.RequestException, ValueError)
"""Everything that the client raises where Rucio cannot be asked or says no; ValueError for an answer that is no JSON."""


def is_timeout(error: Exception) -> bool:
    """Whether Rucio took too long."""
    return isinstance(error, http.Timeout)


def may_pass(error: Exception) -> bool:
    """Whether the same call may do better in a moment."""
    if isinstance(error, rucio.CannotAuthenticate):
        # Where its server says so itself; anything else is what a proxy answered for it.
        return "CannotAuthenticate:" not in str(error)
    if type(error) is rucio.RucioException:
        return True  # what the server itself did not expect: its own 5xx, or two who write the same rows
    return isinstance(error, (*_PASSING, http.RequestException, ValueError))


def convert(error: Exception, *, place: str, host: str, account: str, hint: str = "") -> PacballError:
    """The error of ours for one of the client's.

    `place`: what was asked about; `host`: Rucio's URL; `hint`: what to do where it is absent or not allowed.
    """
    if isinstance(error, _NO_CLIENT):
        advice = "write rucio.cfg with a [client] section, and let RUCIO_HOME name the directory above its etc/"
        return Refused(f"Rucio's client is not configured: {_details(error)}", place=place, hint=advice)
    if isinstance(error, rucio.CannotAuthenticate) and not may_pass(error):
        advice = "check account, identity and credentials in rucio.cfg; try: rucio whoami"
        return Refused(f"{host} does not accept who asks: {_details(error)}", place=place, hint=advice)
    if may_pass(error):
        advice = "nothing is lost; run the same command again when Rucio answers: rucio ping"
        return Unavailable(f"Rucio at {host} does not answer as it should: {_details(error)}", place=place, hint=advice)
    if isinstance(error, _ABSENT):
        return NotFound(f"is not there, says Rucio: {_details(error)}", place=place, hint=hint)
    if isinstance(error, (rucio.AccessDenied, rucio.CannotAuthorize, rucio.ScopeAccessDenied, rucio.RSEAccessDenied)):
        advice = hint or (
            f"let an administrator of Rucio run: rucio account attribute set {account} --key admin --value True; "
            "or use an account that may: RUCIO_ACCOUNT=NAME"
        )
        return Refused(f"the account {account} may not do that: {_details(error)}", place=place, hint=advice)
    return Refused(f"Rucio says no: {_details(error)}", place=place, hint=hint)


def _details(error: Exception) -> str:
    """What the error says, in one line, without the sentence that is the same for all of its class."""
    text = str(error)
    _, _, details = text.partition("\nDetails: ")
    line = " ".join((details or text).split()) or type(error).__name__
    return printable(line[:_MESSAGE_CHARACTERS])
