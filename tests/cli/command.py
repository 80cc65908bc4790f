"""Runs `pacball`: most often in this process, which is quicker; `process` runs the installed entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from typer.testing import CliRunner, Result

from paccli.main import app


@dataclass(frozen=True)
class Command:
    """Calls of the command."""

    def run(self, *arguments: object) -> Result:
        """The outcome of a command in this process."""
        return CliRunner().invoke(app, [os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in arguments])

    def json(self, *arguments: object, code: int = 0) -> dict:
        """The JSON object that a command prints as its last line; its exit code is `code`."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == code, result.output
        (line,) = result.stdout.splitlines()
        return json.loads(line)

    def text(self, *arguments: object, code: int = 0) -> str:
        """What a command prints for people."""
        result = self.run(*arguments)
        assert result.exit_code == code, result.output
        return result.stdout

    def process(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """The outcome of a command as a process of its own."""
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'pacball'; from paccli.main import run; run()",
            *map(str, arguments),
        ]
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths, **environment}, capture_output=True, text=True, check=False
        )
