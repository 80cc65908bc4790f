"""`pacball token`: what is shown once, what is listed, and where the file is looked for."""

from __future__ import annotations

import json
import time

from pacmirror.token_file import find_token, read_tokens


def test_tokens_are_made_listed_and_revoked(pacball, tmp_path):
    file = tmp_path / "tokens.json"
    made = pacball.json("token", "create", "site-a", "--file", file, "--for", "90d")
    pacball.json("token", "create", "site-b", "--file", file)
    assert find_token(read_tokens(file), made["token"], now=time.time()).name == "site-a"
    listed = pacball.json("token", "list", "--file", file)
    assert [(entry["name"], entry["expires"] is None) for entry in listed["tokens"]] == [
        ("site-a", False),
        ("site-b", True),
    ]
    assert made["token"] not in json.dumps(listed)
    assert "sha256" not in json.dumps(listed)
    assert pacball.json("token", "revoke", "site-a", "--file", file)["name"] == "site-a"
    assert "site-b" in pacball.text("token", "list", "--file", file)
    assert pacball.json("token", "revoke", made["id"], "--file", file, code=3)["message"] == "there is no such token"


def test_the_configuration_says_where_the_file_is(pacball, tmp_path):
    config = tmp_path / "pacball.toml"
    config.write_text('store = "x"\n[access]\nread = "token"\ntoken_file = "tokens.json"\n')
    text = pacball.text("token", "create", "site", "--config", config)
    assert "shown this once" in text
    assert len(read_tokens(tmp_path / "tokens.json")) == 1
    assert "--file FILE" in pacball.json("token", "list", code=7)["hint"]


def test_tokens_have_roles_and_lines(pacball, tmp_path):
    file = tmp_path / "tokens.json"
    made = pacball.json(
        "token", "create", "builds", "--file", file, "--role", "publish", "--line", "Demo", "--line", "P"
    )
    assert (made["role"], made["lines"]) == ("publish", ["Demo", "P"])
    pacball.json("token", "create", "monitor", "--file", file, "--role", "report")
    assert "publish Demo,P" in pacball.text("token", "list", "--file", file)
    [builds, _] = read_tokens(file)
    assert [builds.may_publish(line) == "" for line in ("Demo", "P", "Dem", "")] == [True, True, False, False]
    for words in (("--role", "read", "--line", "Demo"), ("--role", "publish", "--line", "../x"), ("--role", "root")):
        assert pacball.json("token", "create", "x", "--file", file, *words, code=7)["message"]
    assert len(read_tokens(file)) == 2
