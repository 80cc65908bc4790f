"""What a command imports before it knows what to do: little, since every call pays for it."""

from __future__ import annotations

import os
import subprocess
import sys

HEAVY = {
    "aiohttp", "asyncio", "cryptography", "numpy", "rich", "securesystemslib", "sqlalchemy", "ssl", "tuf", "urllib3", "yarl",
    "zstandard",
}  # fmt: skip


def modules_after(program: str) -> set[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    program = f"import sys\n{program}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_command_itself_imports_nothing_heavy():
    loaded = modules_after("import paccli.main")
    assert not loaded & HEAVY
    assert len(loaded) < 300


def test_nor_does_help_of_anything():
    calls = """
import contextlib, io
from paccli.main import app
for words in ([], ["install"], ["store"], ["trust"], ["doctor"]):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        app([*words, "--help"])
"""
    assert not modules_after(calls) & HEAVY


def test_a_local_command_needs_no_network(tmp_path):
    calls = f"""
from paccli.main import app
try:
    app(["verify", "No-1-x", "--root", {str(tmp_path)!r}])
except SystemExit as ended:
    assert ended.code == 3, ended.code
"""
    assert not modules_after(calls) & {"aiohttp", "rich", "sqlalchemy", "urllib3"}


def test_who_reads_what_is_installed_does_not_wait_for_an_installer():
    loaded = modules_after("import pacstore.install.upkeep.verify, pacstore.install.root.inventory")
    assert "pacstore.install.installation" not in loaded
    assert not loaded & {"pacstore.install.building", "pacstore.trust.targets", "pacstore.pack", "zstandard"}
