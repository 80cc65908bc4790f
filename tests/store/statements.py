"""Provenance as builders write it, for the tests of provenance."""

from __future__ import annotations

import base64
import json

from pacstore.trust.targets import CatalogRelease

STATEMENT_1 = "https://in-toto.io/Statement/v1"
STATEMENT_0_1 = "https://in-toto.io/Statement/v0.1"
SLSA_1 = "https://slsa.dev/provenance/v1"
SLSA_0_2 = "https://slsa.dev/provenance/v0.2"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SOURCE = {"uri": "git+https://example.org/sw@refs/tags/1.0", "digest": {"gitCommit": "ab" * 20}}


def subject_of(entry: CatalogRelease) -> dict:
    return {"name": str(entry.release), "digest": {"pacballTree": entry.tree_digest.hex}}


def slsa_1(*subjects: dict, **changes: object) -> dict:
    predicate = {
        "buildDefinition": {
            "buildType": "https://example.org/build/v1",
            "externalParameters": {"workflow": "nightly"},
            "resolvedDependencies": [SOURCE],
        },
        "runDetails": {
            "builder": {"id": "https://example.org/builder"},
            "metadata": {
                "invocationId": "7",
                "startedOn": "2026-01-01T00:00:00Z",
                "finishedOn": "2026-01-01T01:00:00Z",
            },
        },
    }
    return {"_type": STATEMENT_1, "subject": list(subjects), "predicateType": SLSA_1, "predicate": predicate, **changes}


def slsa_0_2(*subjects: dict, **changes: object) -> dict:
    predicate = {
        "builder": {"id": "https://example.org/builder"},
        "buildType": "https://example.org/build/v0",
        "metadata": {"buildStartedOn": "2026-01-01T00:00:00Z", "buildFinishedOn": "2026-01-01T01:00:00Z"},
        "materials": [SOURCE, {"uri": "pkg:deb/debian/gcc@12"}],
    }
    return {
        "_type": STATEMENT_0_1,
        "subject": list(subjects),
        "predicateType": SLSA_0_2,
        "predicate": predicate,
        **changes,
    }


def dsse(statement: dict, *, urlsafe: bool = False, keys: tuple[str, ...] = ("key-1", "")) -> dict:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    return {
        "payloadType": "application/vnd.in-toto+json",
        "payload": encode(json.dumps(statement).encode()).decode(),
        "signatures": [{"keyid": key, "sig": "c2ln"} for key in keys],
    }


def bundle(envelope: dict, material: dict, media_type: str = BUNDLE) -> dict:
    return {"mediaType": media_type, "verificationMaterial": material, "dsseEnvelope": envelope}


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()
