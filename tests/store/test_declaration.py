"""pacball.toml: what may stand in it, and that everything else is refused with its place and reason."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore.declaration import FILE_BYTES, MOST_SECONDS, Declaration, check_declared
from pacstore.errors import Corrupt, NewerFormat, PacballError, Refused, TooLarge
from tests.store.install.acting import declaration, make_release

GOOD = """
format = 1
generated = ["lib/python3*/site-packages/**/__pycache__/**", "etc/setup.sh"]

[[after_install]]
name = "relocate"
command = ["bin/relocate", "--prefix", "{prefix}", "{{literally}}", "{staging}/{release}"]
timeout = "10m"

[[after_install]]
name = "compile"
command = ["python3", "-m", "compileall", "-q", "lib"]

[[validate]]
name = "relocate"
command = ["/bin/sh", "-c", "true"]
timeout = "2h"
"""
ONE = 'format = 1\n[[after_install]]\nname = "a"\ncommand = ["true"]\n'


def parse(text):
    return Declaration.parse(text.encode(), place="here")


def test_what_may_stand_in_it():
    found = parse(GOOD)
    assert found.generated.texts == ("lib/python3*/site-packages/**/__pycache__/**", "etc/setup.sh")
    assert [(one.name, one.timeout_seconds, one.program) for one in found.commands] == [
        ("relocate", 600, "bin/relocate"),
        ("compile", 600, None),
        ("relocate", 7200, None),
    ]
    values = {"prefix": "/opt/{release}", "staging": "/s", "release": "R"}
    assert found.after_install[0].argv(values) == (
        "bin/relocate", "--prefix", "/opt/{release}", "{literally}", "/s/R")  # fmt: skip


def test_the_least():
    found = parse("format = 1")
    assert (found.commands, found.generated.texts) == ((), ())


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("", Refused, "must say format = 1"),
        ("format = '1'", Refused, "must say format = 1"),
        ("format = true", Refused, "must say format = 1"),
        ("format = 0", Refused, "must say format = 1"),
        ("format = 2", NewerFormat, "has format 2"),
        ("format = 1\nsurprise = 1", Refused, "unknown key 'surprise'"),
        ("format = 1\n'a\x1b' = 1", Corrupt, "TOML"),
        ('format = 1\n"\\u001b" = 1', Refused, r"unknown key '\\x1b'"),
        ("format = 1\nformat = 1", Corrupt, "is not TOML"),
        ("format 1", Corrupt, "line 1"),
        ("format = " + "[" * 30_000, Corrupt, "TOML"),
        ("format = " + "9" * 10_000, Corrupt, "TOML"),
        ("format = 1\ngenerated = 'a'", Refused, "here: generated: must be a list of texts"),
        ("format = 1\ngenerated = [1]", Refused, "here: generated: must be a list of texts"),
        ("format = 1\ngenerated = ['../a']", Refused, "here: generated: the pattern '../a'"),
        ("format = 1\nafter_install = 1", Refused, "here: after_install: must be"),
        ("format = 1\nafter_install = [1]", Refused, "here: after_install 1: must be a table"),
        (ONE + "env = 1", Refused, "here: after_install 1: has the unknown key 'env'"),
        (ONE.replace('"a"', '"a b"'), Refused, "here: after_install 1: name: needs a name"),
        (ONE.replace('"a"', '"../a"'), Refused, "needs a name"),
        (ONE.replace('"a"', f'"{"a" * 65}"'), Refused, "needs a name"),
        (ONE.replace('name = "a"\n', ""), Refused, "needs a name"),
        (ONE + ONE.partition("\n")[2], Refused, "has two commands of the name a"),
        (ONE.replace('["true"]', '"true"'), Refused, "here: after_install 1: command: must be a list of texts"),
        (ONE.replace('["true"]', "[]"), Refused, "must be a list of the program and its arguments"),
        (ONE.replace('["true"]', '[""]'), Refused, "must be a list of the program"),
        (ONE.replace('["true"]', '["true", 1]'), Refused, "must be a list of texts"),
        (ONE.replace('["true"]', '["../true"]'), Refused, "names a program by a path with"),
        (ONE.replace('["true"]', '["./true"]'), Refused, "names a program by a path with"),
        (ONE.replace('["true"]', '["{prefix}/true"]'), Refused, "no placeholders"),
        (ONE.replace('["true"]', '["tr\\u0007ue"]'), Refused, "control characters"),
        (ONE.replace('["true"]', '["true", "{root}"]'), Refused, "'{root}'.*no placeholder"),
        (ONE.replace('["true"]', '["true", "{"]'), Refused, "'{'.*no placeholder"),
        (ONE.replace('["true"]', '["true", "a}"]'), Refused, "'}'.*no placeholder"),
        (ONE.replace('["true"]', '["true", "a\\u0000"]'), Refused, "zero character"),
        (ONE.replace('["true"]', f'["true", "{"a" * 9000}"]'), Refused, "too long"),
        (ONE.replace('["true"]', str(["true"] * 300)), Refused, "more than 256 words"),
        (ONE + "timeout = 60", Refused, "here: after_install 1: timeout: must be a text like"),
        (ONE + "timeout = '0s'", Refused, "must be a text like"),
        (ONE + "timeout = '13h'", Refused, "at most 12 hours"),
        (ONE + "timeout = '1 h'", Refused, "must be a text like"),
        (ONE + "timeout = '-1s'", Refused, "must be a text like"),
        ("format = 1\n" + ONE.partition("\n")[2] * 33, Refused, "at most 32 tables"),
    ],
)  # fmt: skip
def test_what_is_refused(text, kind, said):
    with pytest.raises(kind, match=said) as caught:
        parse(text)
    assert "here" in str(caught.value)


def test_too_large():
    with pytest.raises(TooLarge, match="65536 bytes"):
        parse("format = 1\n" + "#" * FILE_BYTES)


def test_the_longest_time():
    assert parse(ONE + f"timeout = '{MOST_SECONDS}s'").commands[0].timeout_seconds == MOST_SECONDS


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))))
def test_arbitrary_bytes(data):
    found = None
    try:
        Declaration.parse(data, place="here")
    except PacballError as error:
        found = str(error)
    assert found is None or found.isprintable()


def test_in_a_directory(tmp_path):
    assert check_declared(tmp_path) is None
    tree = make_release(tmp_path / "tree", declaration([], [["bin/run"]]))
    assert check_declared(tree).commands[0].program == "bin/run"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bin/none"], "names a program that the release does not have"),
        (["etc/setup.sh"], "names what is no executable file"),
        (["etc/sub/x"], "names a program that the release does not have"),
        (["lib/pkg"], "names what is no executable file"),
    ],
)
def test_programs_that_the_release_does_not_have(tmp_path, words, said):
    tree = make_release(tmp_path / "tree", declaration([], [words]))
    with pytest.raises(Refused, match=said) as caught:
        check_declared(tree)
    assert "pacball.toml: a0: command" in caught.value.place


@pytest.mark.parametrize("how", ["directory", "symlink", "fifo"])
def test_what_is_no_ordinary_file(tmp_path, how):
    tree = make_release(tmp_path / "tree", declaration())
    (tree / "pacball.toml").unlink()
    {
        "directory": (tree / "pacball.toml").mkdir,
        "symlink": lambda: (tree / "pacball.toml").symlink_to("etc/setup.sh"),
        "fifo": lambda: os.mkfifo(tree / "pacball.toml"),
    }[how]()
    with pytest.raises(Refused, match="must be an ordinary file"):
        check_declared(tree)
