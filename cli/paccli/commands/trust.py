"""Commands for who signs: the ceremonies of `pacball trust`, in docs/trust.md told as stories."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Days, Json, Keys, PassphraseFile, StoreDir
from paccli.outcomes import key_id, print_outcome
from paccli.output import Output, reporting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacstore.trust.ceremony import Keys as RoleKeys
    from pacstore.trust.keyring import KeyRing

Project = Annotated[str, typer.Argument(metavar="PROJECT", help="The PROJECT of the line's releases.")]
Threshold = Annotated[int | None, typer.Option("--threshold", min=1, help="How many of the keys must sign.")]
PublicKeys = Annotated[
    list[Path] | None, typer.Option("--key", metavar="FILE.pub", help="A public key; may be repeated.")
]


def keygen(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for the key, for example yours.")],
    keys: Keys = None,
    plain: Annotated[bool, typer.Option("--plain", help="No passphrase: who reads the file has the key.")] = False,
    passphrase_file: PassphraseFile = None,
    uri: Annotated[
        str | None, typer.Option("--uri", help="The signer's URI of a key kept elsewhere (hardware, KMS).")
    ] = None,
    public: Annotated[Path | None, typer.Option("--public", metavar="FILE", help="With --uri: its public key.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key, NAME.pem, and its public part, NAME.pub, which you give to who asks for it; or take up one kept elsewhere."""
    with reporting(as_json=as_json) as output:
        from paccli.rings import external_public, new_passphrase, own_directory  # noqa: PLC0415
        from pacstore.errors import Refused  # noqa: PLC0415
        from pacstore.trust.keyring import KeyRing  # noqa: PLC0415

        directory = keys or own_directory()
        ring = KeyRing(directory, None)
        if (uri is None) != (public is None):
            hint = "a key kept elsewhere needs the URI of its signer, and its public key: --uri URI --public FILE"
            raise Refused("--uri and --public belong together", place="--uri", hint=hint)
        if uri is not None and (plain or passphrase_file is not None):
            hint = "leave out --plain and --passphrase-file: the signer itself asks for its PIN when it signs"
            raise Refused("a key kept elsewhere has no passphrase here", place="--uri", hint=hint)
        if uri is not None and public is not None:
            ring.adopt(name, external_public(public), uri)
        else:
            # Before anybody thinks of a passphrase.
            if name in ring.names():
                hint = "keys are never overwritten; take another name"
                raise Refused(f"there is a key {name} already", place=str(directory), hint=hint)
            ring.create(name, None if plain else new_passphrase(name, passphrase_file))
        key = ring.public(name)
        path = directory / f"{name}.pub"
        output.text(f"key {key.keyid}")
        output.text(f"its public part, to give away: {path}")
        if uri is None:
            output.text(f"keep a copy of {ring.path(name)} in a safe place")
        output.result({"name": name, "keyid": key.keyid, "public": str(path)})


def init(
    store: StoreDir,
    keys: Keys = None,
    root_key: Annotated[
        list[Path] | None, typer.Option("--root-key", metavar="FILE.pub", help="May be repeated.")
    ] = None,
    root_threshold: Annotated[int, typer.Option("--root-threshold", min=1)] = 1,
    targets_key: Annotated[
        list[Path] | None, typer.Option("--targets-key", metavar="FILE.pub", help="May be repeated.")
    ] = None,
    targets_threshold: Annotated[int, typer.Option("--targets-threshold", min=1)] = 1,
    online_key: Annotated[
        list[Path] | None, typer.Option("--online-key", metavar="FILE.pub", help="May be repeated.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option("--state-dir", help="Where the store keeps its databases.")] = None,
    passphrase_file: PassphraseFile = None,
    timestamp_days: Days = None,
    as_json: Json = False,
) -> None:
    """Begin a catalog: the first ceremony. Without public keys named, keys of its own are made, without passphrases.

    Root and targets keys belong to people, away from the store; the online key to the origin.
    """
    with reporting(as_json=as_json) as output:
        from paccli import keychain  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415
        from pacstore.trust.ceremony import Founding  # noqa: PLC0415

        with Store.create(store, state_dir=state_dir) as opened:
            ring = keychain.open_ring(keys, passphrase_file, store=opened)
            founding = Founding(
                _role_keys(ring, "root", root_key, root_threshold, output),
                _role_keys(ring, "targets", targets_key, targets_threshold, output),
                _role_keys(ring, "online", online_key, 1, output),
            )
            outcome = keychain.begun_catalog(opened, timestamp_days).found(founding, ring, now=time.time())
            opened.remember_keys(ring.directory.absolute())
            keychain.keep_public(ring, [*(root_key or ()), *(targets_key or ()), *(online_key or ())])
            if outcome.version:
                output.text(f"its root, which sites pin: {keychain.remember(opened, ring)}")
        print_outcome(output, outcome, store, ring)


def add_line(
    project: Project,
    store: StoreDir,
    key: PublicKeys = None,
    threshold: Threshold = None,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Begin a line: whose keys sign the releases of PROJECT. Needs targets keys, and that line's; without --key one is made."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import changing, keep_public  # noqa: PLC0415

        with changing(store, keys, passphrase_file) as (catalog, ring):
            line = _role_keys(ring, f"line-{project}", key, threshold or 1, output)
            outcome = catalog.add_line(project, line, ring, now=time.time())
            keep_public(ring, key or ())
        print_outcome(output, outcome, store, ring)


def rotate(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="root, targets, online, or line-PROJECT.")],
    store: StoreDir,
    add: Annotated[list[Path] | None, typer.Option("--add", metavar="FILE.pub", help="May be repeated.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="KEY", help="A key's id, name or FILE.pub; may be repeated.")
    ] = None,
    threshold: Threshold = None,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Change the keys of a role: add some, remove some, or ask for another number of signatures."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import changing, keep_public  # noqa: PLC0415
        from paccli.rings import public_key  # noqa: PLC0415
        from pacstore.errors import Refused  # noqa: PLC0415

        if not add and not remove and threshold is None:
            raise Refused("nothing is to be changed", place=role, hint="give --add, --remove or --threshold")
        added = [public_key(path) for path in add or ()]
        with changing(store, keys, passphrase_file) as (catalog, ring):
            removed = [key_id(one, catalog, ring) for one in remove or ()]
            outcome = catalog.rotate(role, ring, now=time.time(), add=added, remove=removed, threshold=threshold)
            keep_public(ring, add or ())
        print_outcome(output, outcome, store, ring)


def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, name or FILE.pub.")],
    store: StoreDir,
    replace_with: Annotated[
        Path | None, typer.Option("--replace-with", metavar="FILE.pub", help="The key that takes its place.")
    ] = None,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Take a stolen or lost key out of every role that trusts it."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import changing, keep_public  # noqa: PLC0415
        from paccli.rings import public_key  # noqa: PLC0415

        replacement = public_key(replace_with) if replace_with is not None else None
        with changing(store, keys, passphrase_file) as (catalog, ring):
            outcome = catalog.revoke(key_id(key, catalog, ring), replacement, ring, now=time.time())
            keep_public(ring, [replace_with] if replace_with is not None else ())
        print_outcome(output, outcome, store, ring)


def refresh(
    store: StoreDir,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    timestamp_days: Days = None,
    as_json: Json = False,
) -> None:
    """Countersign: commit what is completely signed, and sign the timestamp anew so that it does not expire. The online key's."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import begun_catalog, open_ring  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened:
            catalog, ring = begun_catalog(opened, timestamp_days), open_ring(keys, passphrase_file, store=opened)
            with opened.catalog_lock():
                outcome = catalog.refresh(ring, now=time.time())
            expires = min(catalog.expiries().values())
        print_outcome(output, outcome, store, ring, expires=expires)


def republish(
    store: StoreDir,
    above_version: Annotated[
        int, typer.Option("--above-version", min=1, help="The highest version that a client may have seen.")
    ],
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="line-PROJECT", help="A line that is as clients know it; may be repeated."),
    ] = None,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """After a restored backup: sign everything anew, under versions that are higher than any that clients have seen."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import changing  # noqa: PLC0415

        with changing(store, keys, passphrase_file) as (catalog, ring):
            outcome = catalog.republish(ring, now=time.time(), above=above_version, keep=keep or ())
        print_outcome(output, outcome, store, ring)


def drop(
    store: StoreDir,
    roles: Annotated[list[str] | None, typer.Argument(metavar="[ROLE]...", help="Only these.")] = None,
    as_json: Json = False,
) -> None:
    """Drop what waits for signatures."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import begun_catalog  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened:
            dropped = begun_catalog(opened).drop(roles or ())
        output.text(f"dropped: {', '.join(dropped)}" if dropped else "nothing waited")
        output.result({"dropped": list(dropped)})


def _role_keys(ring: KeyRing, name: str, files: Sequence[Path] | None, threshold: int, output: Output) -> RoleKeys:
    """The public keys in `files`; without any, one of `ring`'s own, made if it is missing."""
    from paccli.rings import public_key  # noqa: PLC0415
    from pacstore.trust.ceremony import Keys as RoleKeys  # noqa: PLC0415

    if files:
        return RoleKeys(tuple(public_key(path) for path in files), threshold)
    if name in ring.names():
        return RoleKeys((ring.public(name),), threshold)
    key = ring.create(name)
    output.text(f"made the key {name}, without a passphrase: {ring.path(name)}")
    output.text(f"key {key.keyid}")
    return RoleKeys((key,), threshold)
