"""Provenance: what a builder states about how a release was made, as a document that the line's key signs for with the release.

Read are in-toto Statements (v1, v0.1), alone, in a DSSE envelope, or in a Sigstore bundle. **No signature inside the document is
verified here**: that it belongs to the release is what the catalog says; who built it is what the document says.
Sources: in-toto Attestation Framework 1.0, DSSE 1.0.2, Sigstore bundle 0.3, SLSA provenance v1 and v0.2.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.documents import fetch_signed
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.holdings import decode_json
from pacstore.limits import LIMITS
from pacstore.links import links_of
from pacstore.storage import ObjectKind, object_path
from pacstore.trust.targets import CatalogRelease, SignedDocument

if TYPE_CHECKING:
    from pacstore.source import Source
    from pacstore.store import Store

SUMMARY_ITEMS = 20
"""The most subjects, sources and signatures that a summary names."""
SUMMARY_CHARACTERS = 500
"""The most characters of each of its texts."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENTS = re.compile(r"https://in-toto\.io/Statement/v(?:1|0\.1)\Z")
_BUNDLE = re.compile(r"application/vnd\.dev\.sigstore\.bundle(?:\+json;version=|\.v)0\.[0-9]+")
_SLSA_1 = re.compile(r"https://slsa\.dev/provenance/v1(?:\.[0-9]+)?\Z")
_SLSA_0_2 = "https://slsa.dev/provenance/v0.2"
_NO_STATEMENT = "give one in-toto Statement, alone, in a DSSE envelope or in a Sigstore bundle"


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something that a statement names: `name` is its name or URI, `digests` hexadecimal digits by algorithm."""

    name: str
    digests: dict[str, str]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a provenance states, nothing of it verified; texts are empty where it does not say.

    `envelope`: `none`, `dsse` or `sigstore bundle`. `signed_by_unverified`: the key ids of its signatures. `started` and
    `finished` are as the builder wrote them. `subjects` and `sources` have at most SUMMARY_ITEMS of the `subject_count` and
    `source_count` that there are.
    """

    statement_type: str
    predicate_type: str
    envelope: str
    signed_by_unverified: tuple[str, ...]
    subjects: tuple[Artifact, ...]
    subject_count: int
    builder: str = ""
    build_type: str = ""
    started: str = ""
    finished: str = ""
    sources: tuple[Artifact, ...] = ()
    source_count: int = 0


@dataclass(frozen=True)
class Statement:
    """An in-toto Statement: what is stated (`predicate`, of `predicate_type`) of which `subjects`."""

    type: str
    predicate_type: str
    predicate: dict[str, object]
    subjects: tuple[Artifact, ...]
    envelope: str
    key_ids: tuple[str, ...]

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Statement:
        """The statement in `data`. Raises Corrupt for what has none, TooLarge."""
        outer = decode_json(data, limit=LIMITS.provenance_bytes, place=place)
        if "_type" in outer:
            return _statement(outer, "none", (), place)
        bundle = outer.get("mediaType")
        if isinstance(bundle, str) and _BUNDLE.match(bundle):
            envelope = _object(outer.get("dsseEnvelope"), "dsseEnvelope", place)
            return _statement(_payload(envelope, place), "sigstore bundle", _bundle_keys(outer, envelope), place)
        if "payloadType" in outer:
            return _statement(_payload(outer, place), "dsse", _key_ids(outer), place)
        raise Corrupt("has no in-toto Statement", place=place, hint=_NO_STATEMENT)

    def names(self, entry: CatalogRelease) -> bool:
        """Whether one of the subjects is the release: its tree, or its manifest."""
        accepted = _accepted(entry)
        return any(subject.digests.get(key) == value for subject in self.subjects for key, value in accepted)

    def summary(self) -> Summary:
        """What people want to know of it."""
        found = Summary(
            statement_type=self.type,
            predicate_type=_short(self.predicate_type),
            envelope=self.envelope,
            signed_by_unverified=tuple(_short(key) for key in self.key_ids[:SUMMARY_ITEMS]),
            subjects=_shortened(self.subjects),
            subject_count=len(self.subjects),
        )
        if _SLSA_1.match(self.predicate_type):
            return _add_slsa_1(found, self.predicate)
        return _add_slsa_0_2(found, self.predicate) if self.predicate_type == _SLSA_0_2 else found


def check_subject(statement: Statement, entry: CatalogRelease) -> None:
    """Raise Refused unless the statement names the release as a subject, with the digests that would do."""
    if not statement.names(entry):
        wanted = "; or ".join(f'"{key}": "{value}"' for key, value in _accepted(entry))
        hint = f"let a subject of the statement have the digest {wanted}"
        raise Refused("the statement does not name this release as a subject", place=str(entry.release), hint=hint)


def store_provenance(store: Store, entry: CatalogRelease, data: bytes) -> SignedDocument:
    """Store the provenance `data` of a release, durably, and link it; what is returned can then be signed.

    Raises Corrupt for what is no statement, Refused for a statement of something else, TooLarge, Unavailable, and NotFound where
    the store does not have the release's other documents.
    """
    check_subject(Statement.parse(data, place=f"the provenance of {entry.release}"), entry)
    document = SignedDocument.of_all([data])
    with store.storage.stage(ObjectKind.PROVENANCE) as staged:
        staged.write(data)
        staged.publish(document.digest)
    store.storage.link(links_of(with_provenance(entry, document)))
    return document


def with_provenance(entry: CatalogRelease, document: SignedDocument) -> CatalogRelease:
    """The release as the catalog describes it once it has this provenance."""
    return dataclasses.replace(entry, provenance=document)


def fetch_provenance(source: Source, entry: CatalogRelease) -> bytes:
    """The provenance of a release, compared with what the catalog signs.

    Raises NotFound where the catalog, or the source, has none, Corrupt, TooLarge and what the source raises.
    """
    if entry.provenance is None:
        raise NotFound("has no provenance in the catalog", place=str(entry.release))
    return fetch_signed(source, object_path(ObjectKind.PROVENANCE, entry.provenance.digest), entry.provenance)


def _accepted(entry: CatalogRelease) -> tuple[tuple[str, str], ...]:
    tree = entry.tree_digest.hex
    return ("pacballTree", tree), ("blake3", tree), ("sha256", entry.manifest.sha256.hex())


def _statement(value: dict[str, object], envelope: str, key_ids: tuple[str, ...], place: str) -> Statement:
    kind, predicate_type, subjects = value.get("_type"), value.get("predicateType"), value.get("subject")
    if not isinstance(kind, str) or not _STATEMENTS.match(kind):
        raise Corrupt("is not an in-toto Statement of version 1 or 0.1", place=place, hint=_NO_STATEMENT)
    if not isinstance(predicate_type, str) or not predicate_type:
        raise Corrupt("its statement has no predicateType", place=place)
    if not isinstance(subjects, list) or not subjects:
        raise Corrupt("its statement has no subjects", place=place)
    predicate = _object(value.get("predicate", {}), "predicate", place)
    found = tuple(_artifact(_object(subject, "subject", place), "name") for subject in subjects)
    return Statement(kind, predicate_type, predicate, found, envelope, key_ids)


def _payload(envelope: dict[str, object], place: str) -> dict[str, object]:
    payload = envelope.get("payload")
    if envelope.get("payloadType") != PAYLOAD_TYPE or not isinstance(payload, str):
        raise Corrupt(f"its envelope has no payload of type {PAYLOAD_TYPE}", place=place, hint=_NO_STATEMENT)
    try:
        # DSSE allows both alphabets.
        data = base64.b64decode(payload.translate(_STANDARD_ALPHABET), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Corrupt("the payload of its envelope is not base64", place=place) from error
    return decode_json(data, limit=LIMITS.provenance_bytes, place=place)


_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def _key_ids(envelope: dict[str, object]) -> tuple[str, ...]:
    signatures = [one for one in _list(envelope.get("signatures")) if isinstance(one, dict)]
    return tuple(_text(one, "keyid") or "a key without an id" for one in signatures)


def _bundle_keys(bundle: dict[str, object], envelope: dict[str, object]) -> tuple[str, ...]:
    """The key that the bundle names; its signatures have no ids of their own as a rule."""
    material = bundle.get("verificationMaterial")
    if isinstance(material, dict) and ("certificate" in material or "x509CertificateChain" in material):
        return ("a certificate",)
    hint = _text(material, "publicKey", "hint")
    return (hint,) if hint else _key_ids(envelope)


def _add_slsa_1(summary: Summary, predicate: dict[str, object]) -> Summary:
    sources = _list(_value(predicate, "buildDefinition", "resolvedDependencies"))
    return dataclasses.replace(
        summary,
        builder=_short(_text(predicate, "runDetails", "builder", "id")),
        build_type=_short(_text(predicate, "buildDefinition", "buildType")),
        started=_short(_text(predicate, "runDetails", "metadata", "startedOn")),
        finished=_short(_text(predicate, "runDetails", "metadata", "finishedOn")),
        sources=_sources(sources),
        source_count=len(sources),
    )


def _add_slsa_0_2(summary: Summary, predicate: dict[str, object]) -> Summary:
    sources = _list(predicate.get("materials"))
    return dataclasses.replace(
        summary,
        builder=_short(_text(predicate, "builder", "id")),
        build_type=_short(_text(predicate, "buildType")),
        started=_short(_text(predicate, "metadata", "buildStartedOn")),
        finished=_short(_text(predicate, "metadata", "buildFinishedOn")),
        sources=_sources(sources),
        source_count=len(sources),
    )


def _sources(sources: list[object]) -> tuple[Artifact, ...]:
    return _shortened(tuple(_artifact(one, "uri") for one in sources[:SUMMARY_ITEMS] if isinstance(one, dict)))


def _artifact(value: dict[str, object], name: str) -> Artifact:
    digests = value.get("digest")
    texts = digests if isinstance(digests, dict) else {}
    return Artifact(_text(value, name) or _text(value, "name"), {k: v for k, v in texts.items() if isinstance(v, str)})


def _shortened(artifacts: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
    return tuple(
        Artifact(_short(one.name), {_short(k): _short(v) for k, v in list(one.digests.items())[:SUMMARY_ITEMS]})
        for one in artifacts[:SUMMARY_ITEMS]
    )


def _object(value: object, what: str, place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Corrupt(f"its {what} is not an object", place=place, hint=_NO_STATEMENT)
    return value


def _value(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: object, *keys: str) -> str:
    found = _value(value, *keys)
    return found if isinstance(found, str) else ""


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _short(text: str) -> str:
    return text if len(text) <= SUMMARY_CHARACTERS else f"{text[:SUMMARY_CHARACTERS]}..."
