"""Commands of `pacball trust` for who signs what others prepared, or looks: sign, submit, export, status, verify."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from paccli.options import AsOf, FirstUse, From, Json, Keys, PassphraseFile, RootKeys, TrustOptions
from paccli.outcomes import print_outcome
from paccli.output import date, reporting

AnyStore = Annotated[Path | None, typer.Option("--store", metavar="DIR", help="The store.")]


def sign(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A change file; without it, what waits in --store.")
    ] = None,
    store: AnyStore = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="Sign only this one; may be repeated.")] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Sign anew what expires first: root, targets and lines of these keys.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether what is shown is right.")] = False,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    root_keys: RootKeys = None,
    as_json: Json = False,
) -> None:
    """Sign what waits for your keys, after it was shown: in a store, or in a file that came from one."""
    with reporting(as_json=as_json) as output:
        from paccli import rings, signatures  # noqa: PLC0415
        from pacstore.errors import Refused  # noqa: PLC0415

        if (file is None) == (store is None):
            raise Refused("say what is to be signed", place="FILE", hint="name a change file, or --store DIR, not both")
        if file is not None and renew:
            hint = "at the store: pacball trust sign --renew --role ROLE --store DIR; then export it, and sign the file"
            raise Refused("a file has nothing to renew", place="--renew", hint=hint)
        if file is not None:
            ring = rings.open_ring(keys, passphrase_file)
            return signatures.sign_file(file, ring, root_keys, role or (), output, ask=not yes)
        assert store is not None
        if root_keys is not None:
            raise Refused("is for change files: a store is its own", place="--root-keys", hint="leave it out")
        from paccli import keychain  # noqa: PLC0415 - what signs files needs no store, and starts in half the time
        from pacstore import submission  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened:
            catalog = keychain.begun_catalog(opened)
            wanted = signatures.wanted_keys(catalog.status(), renew=renew)
            ring = keychain.signing_ring(keys, passphrase_file, store=opened, keyids=wanted)
            if renew:
                outcome = catalog.renew(role or signatures.own_roles(catalog, ring), ring, now=time.time())
            else:
                change = signatures.sign_waiting(catalog, ring, role or (), output, ask=not yes)
                outcome = submission.submit(opened, catalog, change, ring, now=time.time())
        print_outcome(output, outcome, store, ring)
    return None


def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A change file that was signed.")],
    store: Annotated[Path, typer.Option("--store", metavar="DIR", help="The store.")],
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Take the signatures in a change file into the store; what is complete is committed if the online key is here."""
    with reporting(as_json=as_json) as output:
        from paccli import keychain, signatures  # noqa: PLC0415
        from pacstore import submission  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        change = signatures.read_change(file)
        with Store.open(store, writable=True) as opened:
            catalog, ring = keychain.begun_catalog(opened), keychain.open_ring(keys, passphrase_file, store=opened)
            outcome = submission.submit(opened, catalog, change, ring, now=time.time())
        print_outcome(output, outcome, store, ring)


def export(
    store: Annotated[Path, typer.Option("--store", metavar="DIR", help="The store.")],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")],
    root: Annotated[
        bool, typer.Option("--root", help="The first root, which sites pin, instead of what waits.")
    ] = False,
    newest_root: Annotated[
        bool, typer.Option("--newest-root", help="The root in force: for sites that begin after a root key was stolen.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write what waits for signatures into a file, to be signed elsewhere; or, with --root, the root that sites pin."""
    with reporting(as_json=as_json) as output:
        import shlex  # noqa: PLC0415

        from paccli import keychain  # noqa: PLC0415
        from pacstore.durable import replace_file  # noqa: PLC0415
        from pacstore.errors import Refused  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415
        from pacstore.trust.pins import fingerprint  # noqa: PLC0415

        if root and newest_root:
            raise Refused("these are two roots", place="--root", hint="leave out --root or --newest-root")
        with Store.open(store, writable=False) as opened:
            if root or newest_root:
                data = keychain.root_of(opened, newest=newest_root)
            else:
                data = keychain.begun_catalog(opened).export().encode()
        replace_file(out, data, staging=out.absolute().parent)
        where = shlex.quote(str(out))
        mark = fingerprint(data) if root or newest_root else None
        output.text(
            f"{out}: fingerprint {mark}" if mark else f"{out}: its signers sign it with: pacball trust sign {where}"
        )
        output.result({"file": str(out), "fingerprint": mark})


def status(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A change file, or a root.json, instead of a catalog.")
    ] = None,
    store: AnyStore = None,
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with code 1 if there is a warning.")] = False,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Show every role, its keys and when it expires, and what waits for whom: of a store, of any source, or in a file."""
    with reporting(as_json=as_json) as output:
        from paccli import exits, overview  # noqa: PLC0415
        from paccli.rings import open_ring  # noqa: PLC0415
        from pacstore.errors import Refused  # noqa: PLC0415

        if sum(one is not None for one in (file, store, source)) > 1:
            raise Refused("say which one", place="status", hint="a FILE, --store DIR, or --from SOURCE")
        if file is not None:
            return overview.print_file(file, open_ring(keys, None), root_keys, output)
        if store is None:
            options = TrustOptions(root_keys, trust_on_first_use)
            warnings = overview.print_source(source, options, output)
        else:
            from paccli.keychain import begun_catalog  # noqa: PLC0415
            from pacstore.store import Store  # noqa: PLC0415

            with Store.open(store, writable=False) as opened:
                ring = open_ring(keys, None, store=opened)
                warnings = overview.print_status(begun_catalog(opened).status(), ring, output)
        if check and warnings:
            raise SystemExit(exits.DAMAGED)
    return None


def verify(
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Verify all of a source's catalog as an installer would, every line included. Exit code 8 if it cannot be believed."""
    with reporting(as_json=as_json) as output:
        from paccli.sources import opening  # noqa: PLC0415

        with opening(source, TrustOptions(root_keys, trust_on_first_use, as_of=as_of), output) as opened:
            releases = opened.catalog.releases()
            # What this user has seen before may still be installed; the catalog is out of date all the same.
            opened.catalog.check_fresh()
            version, expires = opened.catalog.version, opened.catalog.expires
        output.text(
            f"all is signed as it must be: version {version}, {len(releases)} releases, valid until {date(expires)}"
        )
        output.result({"version": version, "releases": len(releases), "expires": date(expires)})
