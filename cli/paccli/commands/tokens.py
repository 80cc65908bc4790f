"""Commands for who runs a daemon: `pacball token`, for what clients must show it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Json
from paccli.output import fields, reporting

if TYPE_CHECKING:
    from pacmirror.token_file import Token

File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The file of the tokens: access.token_file of the daemon.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The daemon's configuration, which names that file.")
]


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For whom, for example a site: to revoke it by.")],
    file: File = None,
    config: ConfigFile = None,
    role: Annotated[
        str,
        typer.Option(
            "--role",
            help="What it allows: read; publish (and read); report (see how the server does); admin (all of it).",
        ),
    ] = "read",
    line: Annotated[
        list[str] | None,
        typer.Option("--line", metavar="PROJECT", help="Only releases of this project may be published. Repeatable."),
    ] = None,
    span: Annotated[
        str | None,
        typer.Option("--for", metavar="SPAN", help="How long it is valid: 90d, 12h. Default: until revoked."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token, and show it this once: only what it hashes to is kept. The daemon knows it within a second."""
    with reporting(as_json=as_json) as output:
        from pacmirror.token_file import create_token  # noqa: PLC0415
        from pacstore.amounts import parse_span  # noqa: PLC0415

        now = time.time()
        expires = int(now) + parse_span(span, place="--for") if span is not None else None
        path = _token_file(file, config)
        token, text = create_token(path, name=name, role=role, now=now, expires=expires, lines=line or ())
        output.text(f"made the token {token.name} ({token.id}, {_scope(token)}, {_until(token.expires)}) in {path}")
        output.text("it is shown this once; whoever is to use it writes it into a file of their own (0600):")
        output.text(text)
        shown = {"id": token.id, "name": token.name, "role": token.role, "lines": list(token.lines)}
        output.result({"token": text, **shown, "expires": token.expires})


def list_tokens(file: File = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the tokens that the daemon accepts. Of the tokens themselves nothing is known."""
    with reporting(as_json=as_json) as output:
        from pacmirror.token_file import read_tokens  # noqa: PLC0415
        from pacstore.trust.clock import date  # noqa: PLC0415

        tokens, now = read_tokens(_token_file(file, config)), time.time()
        for token in tokens:
            state = "has expired" if token.expires is not None and now >= token.expires else _until(token.expires)
            output.text(f"{token.id}  {_scope(token)}  {token.name}  made {date(token.created)}, {state}")
        if not tokens:
            output.text("there are no tokens")
        output.result({"tokens": [{k: v for k, v in fields(token).items() if k != "sha256"} for token in tokens]})


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name, or its id.")],
    file: File = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Accept a token no more. The daemon knows it within a second."""
    with reporting(as_json=as_json) as output:
        from pacmirror.token_file import revoke_token  # noqa: PLC0415

        token = revoke_token(_token_file(file, config), name)
        output.text(f"revoked the token {token.name} ({token.id})")
        output.result({"id": token.id, "name": token.name})


def _token_file(file: Path | None, config: Path | None) -> Path:
    if file is not None:
        return file
    from paccli.daemon import load  # noqa: PLC0415
    from pacstore.errors import Refused  # noqa: PLC0415

    found = load(config, {}).config.access.token_file if config is not None else None
    if found is None:
        hint = "give --file FILE, or --config FILE with token_file in [access]"
        raise Refused("no file of tokens is named", place=str(config or "--file"), hint=hint)
    return found


def _scope(token: Token) -> str:
    return f"{token.role} {','.join(token.lines)}" if token.lines else token.role


def _until(expires: int | None) -> str:
    from pacstore.trust.clock import date  # noqa: PLC0415

    return f"valid until {date(expires)}" if expires is not None else "valid until it is revoked"
