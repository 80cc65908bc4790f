"""Runs the commands of a guide as it stands: its people have machines of their own, files travel as it says, output is compared.

A guide is Markdown with `## N. Title` chapters. What is run stands in blocks marked `sh`:

    # alice and bob, each at home, with change.json from the origin
    $ pacball trust sign change.json
    sign this? [y/N] y
    root: signed with … (…)

* The first line says who types this: one person, or several, each of whom does. Everybody has a machine, where `~`, `/srv`,
  `/opt`, `/media` and `/etc/pacball` are their own, and works in `~`. While somebody types, no other machine can be reached.
* `with FILE from PERSON` brings files there first; `as NAME` after FILE gives it another name. A file that is not in PERSON's
  `~` is one of PERSON's keys.
* `goes on` in that line: the command is a daemon, and runs until a block of its person has `stops` there, or the guide ends.
* Lines that begin with `$ ` are commands, for bash. One that ends with `# exit code N` must end so, all others with 0. One
  that ends with `# after a moment` is repeated until it prints what is shown.
* The lines below a command are lines of its output, in their order, notes (`pacball: …`) and the rest each by themselves; others
  may stand between them. `…` is any text.
* Questions for passphrases and PINs are answered and need not be shown; `[y/N]` is answered with y.
* A comment `<!-- test` ... `-->` holds blocks that readers need not see: they make what is there already, or goes wrong.

`origin.example.org:8080` and `0.0.0.0:8080` are a port of this machine.
"""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, load_ssh_private_key

from tests.e2e.site import END_S, PACBALL, READY_S, free_port

COMMAND_S = 60.0
MOMENT_S = 30.0
SECRETS = {"passphrase": "correct horse battery staple", "PIN": "48151623"}
_HEADING = re.compile(r"## (\d+)\. (.*)")
_ARTICLE = re.compile(r"\b(?:the|a) ")
_BROUGHT = re.compile(r"(\S+)(?: as (\S+))? from (\w+)")
_ROOTS = re.compile(r"(?<![\w.~/-])/(srv|opt|media|etc/pacball)\b")
_ADDRESS = re.compile(r"(?:origin\.example\.org|0\.0\.0\.0):8080")
_EXIT = re.compile(r"\s+# exit code (\d+)\Z")
_MOMENT = re.compile(r"\s+# after a moment\Z")
_NOTE = "pacball: "
_QUESTION = re.compile(r"[^\n]*(?P<kind>passphrase|PIN|the same again)[^\n]*: \Z")
_AGREE = re.compile(r"[^\n]*\[y/N\] \Z")


@dataclass(frozen=True)
class Step:
    """One command as it is written, the lines shown of its output, and how it must end."""

    line: int
    command: str
    shown: tuple[str, ...]
    code: int = 0
    after_a_moment: bool = False


@dataclass(frozen=True)
class Block:
    """Steps of one person, or of several who each do them; `brought`: (file, person, name here)."""

    line: int
    header: str
    people: tuple[str, ...]
    brought: tuple[tuple[str, str, str], ...]
    steps: tuple[Step, ...]

    @property
    def goes_on(self) -> bool:
        """Whether its command is a daemon."""
        return "goes on" in self.header


@dataclass(frozen=True)
class Chapter:
    """A numbered part of a guide."""

    number: int
    title: str
    blocks: tuple[Block, ...]


def parse(text: str) -> list[Chapter]:
    """The chapters of a guide, with the blocks in them. Fails for a block that does not say whose it is."""
    chapters: list[tuple[int, str, list[Block]]] = []
    lines = text.splitlines()
    for at, line in enumerate(lines):
        heading = _HEADING.match(line)
        if heading:
            chapters.append((int(heading[1]), heading[2], []))
        elif line in ("```sh", "<!-- test"):
            end = lines.index("```" if line == "```sh" else "-->", at)
            assert chapters, f"line {at + 1}: a block before the first chapter"
            starts = [n for n in range(at + 1, end) if lines[n].startswith("# ")]
            assert starts[:1] == [at + 1], f"line {at + 2}: the first line of a block says whose commands these are"
            chapters[-1][2].extend(_block(a + 1, lines[a:b]) for a, b in pairwise([*starts, end]))
    return [Chapter(number, title, tuple(blocks)) for number, title, blocks in chapters]


def _block(line: int, lines: Sequence[str]) -> Block:
    header = _ARTICLE.sub("", lines[0][2:])
    before, _, brought = header.partition(" with ")
    people = re.split(
        r" and |, ", re.split(r", (?:each|at|on|goes|stops|who|whose|which|again)\b", before.rstrip(","))[0]
    )
    for one in people:
        assert re.fullmatch(r"[a-z]+", one), f"line {line}: {one!r} is no person"
    files = tuple((found[1], found[3], found[2] or Path(found[1]).name) for found in _BROUGHT.finditer(brought))
    return Block(line, header, tuple(people), files, tuple(_steps(line + 1, lines[1:])))


def _steps(first: int, lines: Sequence[str]) -> Iterator[Step]:
    at = 0
    while at < len(lines):
        start, command = at, lines[at]
        assert command.startswith("$ "), f"line {first + at}: commands begin with $"
        while command.endswith("\\"):
            at += 1
            command = command[:-1] + lines[at].lstrip()
        at += 1
        shown = []
        while at < len(lines) and not lines[at].startswith("$ "):
            shown.append(lines[at].rstrip())
            at += 1
        code, moment = _EXIT.search(command), _MOMENT.search(command)
        command = _MOMENT.sub("", _EXIT.sub("", command))[2:]
        yield Step(first + start, command, tuple(shown), int(code[1]) if code else 0, bool(moment))


@dataclass
class Machine:
    """Somebody's computer: `top` holds what is theirs, `alias` leads there while they may reach it."""

    name: str
    top: Path
    alias: Path
    running: list[Conversation] = field(default_factory=list)
    weakened: set[Path] = field(default_factory=set)

    def environment(self, top: Path) -> dict[str, str]:
        """The variables of a shell there; whoever uses them sees the machine at `top`."""
        return {
            "PATH": f"{PACBALL.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(top / "home"),
            "USER": self.name,
            "PACBALL_SYSTEM_CONFIG_DIR": str(top / "etc/pacball"),
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            "PYTHONWARNINGS": "error",
        }


class World:
    """The machines of a guide's people below `top`, and what its commands did. `extra` are variables that all shells have."""

    def __init__(self, top: Path, extra: Mapping[str, str] | None = None) -> None:
        self.top = top
        self.machines: dict[str, Machine] = {}
        self.transcript: list[str] = []
        self._extra = dict(extra or {})
        self._address = f"127.0.0.1:{free_port()}"

    def machine(self, name: str) -> Machine:
        """The machine of that person; made when it is first spoken of."""
        if name not in self.machines:
            found = Machine(name, self.top / "machines" / name, self.top / "at" / name)
            for part in ("home", "srv", "opt", "media", "etc/pacball"):
                (found.top / part).mkdir(parents=True)
            found.alias.parent.mkdir(exist_ok=True)
            self.machines[name] = found
        return self.machines[name]

    def path(self, person: str, path: str) -> Path:
        """A path such as /srv/store or ~/work on the machine of `person`, for a look at it."""
        return self.machine(person).top / path.replace("~", "home", 1).lstrip("/")

    def run(self, block: Block) -> None:
        """Do what a block says; fails with what was printed where something is otherwise than shown."""
        machines = [self.machine(name) for name in block.people]
        for machine in machines:
            if "stops" in block.header:
                self._end(machine)
            for name, giver, here in block.brought:
                shutil.copy(self._given(self.machine(giver), name, block.line), machine.top / "home" / here)
        if block.goes_on:
            return self._begin(machines[0], block.steps)
        with self._reachable(machines), ThreadPoolExecutor(len(machines)) as pool:
            for done in [pool.submit(self._type, machine, block.steps) for machine in machines]:
                done.result()
            list(pool.map(_weaken_keys, machines))
        return None

    def end(self) -> None:
        """End what still runs."""
        for machine in self.machines.values():
            self._end(machine)

    def _given(self, machine: Machine, name: str, line: int) -> Path:
        places = [machine.top / "home" / name.removeprefix("~/")]
        places += [path for path in machine.top.rglob(name) if path.name == name and path.parent.name.endswith("keys")]
        places += [machine.top / "home/.config/pacball/keys/own" / name]
        found = next((path for path in places if path.exists()), None)
        assert found is not None, f"line {line}: {machine.name} has no {name}"
        return found

    @contextmanager
    def _reachable(self, machines: Sequence[Machine]) -> Iterator[None]:
        for machine in machines:
            machine.alias.symlink_to(machine.top)
        try:
            yield
        finally:
            for machine in machines:
                machine.alias.unlink()

    def _type(self, machine: Machine, steps: Sequence[Step]) -> None:
        for step in steps:
            deadline = time.monotonic() + (MOMENT_S if step.after_a_moment else 0)
            while True:
                done = self._talk(machine, machine.alias, step).to_its_end()
                fault = _fault(step, done.code, self._as_written(machine, machine.alias, done.text))
                if not fault or time.monotonic() >= deadline:
                    break
                time.sleep(0.1)
            self.transcript.append(
                f"{machine.name}$ {step.command}\n{self._as_written(machine, machine.alias, done.text)}"
            )
            assert not fault, f"line {step.line}: {fault}\n\n" + "\n".join(self.transcript[-8:])

    def _begin(self, machine: Machine, steps: Sequence[Step]) -> None:
        (step,) = steps
        # It looks at the machine by another way, so that others cannot reach the machine meanwhile.
        talk = self._talk(machine, machine.top, step)
        machine.running.append(talk)

        def is_ready() -> bool:
            return not _fault(step, 0, self._as_written(machine, machine.top, talk.text))

        talk.listen(is_ready, READY_S)
        assert is_ready(), f"line {step.line}: it does not begin: {talk.text}"

    def _end(self, machine: Machine) -> None:
        for talk in machine.running:
            talk.process.send_signal(signal.SIGTERM)
            assert talk.to_its_end(END_S).code == 0, talk.text
            assert "Traceback" not in talk.text, talk.text
        machine.running.clear()

    def _talk(self, machine: Machine, top: Path, step: Step) -> Conversation:
        command = _ADDRESS.sub(self._address, _ROOTS.sub(lambda found: f"{top}/{found[1]}", step.command))
        script = f"exec {command}" if machine.top == top else command
        return Conversation(script, {**machine.environment(top), **self._extra}, top / "home")

    def _as_written(self, machine: Machine, top: Path, text: str) -> str:
        """What was printed, with the names of the guide for what has others here."""
        for where in (top, machine.top):
            text = text.replace(f"{where}/home", f"/home/{machine.name}").replace(str(where), "")
        return text.replace(self._address, "origin.example.org:8080")


class Conversation:
    """A command at a terminal, whose questions are answered. `text` is what it printed, `code` its end.

    Errors and notes go by a pipe: on a terminal there would be bars of progress between them.
    """

    def __init__(self, script: str, environment: Mapping[str, str], where: Path) -> None:
        self.text = ""
        self.code = -1
        self._answered = 0
        self._terminal, slave = pty.openpty()
        errors, theirs = os.pipe()
        _make_plain(slave)
        self._ends = (errors, self._terminal)
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in self._ends}
        try:
            self.process = subprocess.Popen(
                ["bash", "-c", script],
                env=dict(environment),
                cwd=where,
                stdin=slave,
                stdout=slave,
                stderr=theirs,
                start_new_session=True,
            )
        finally:
            os.close(slave)
            os.close(theirs)

    def to_its_end(self, seconds: float = COMMAND_S) -> Conversation:
        """Listen and answer until the command has ended; fails if that takes too long."""
        self.listen(lambda: False, seconds)
        ended = not self._decoders
        if not ended:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.code = self.process.wait(END_S)
        # Not before: a terminal that is closed may end what is about to end by itself.
        for fd in self._ends:
            os.close(fd)
        assert ended, f"it takes too long:\n{self.text}"
        return self

    def listen(self, enough: Callable[[], bool], seconds: float) -> None:
        """Listen and answer until `enough`, or the command has nobody left who could say more; for at most so long."""
        deadline = time.monotonic() + seconds
        while self._decoders and time.monotonic() < deadline and not enough():
            ready = select.select(list(self._decoders), [], [], 0.2)[0]
            notes = "".join(self._hear(fd) for fd in ready if fd != self._terminal)
            # Notes are printed before what they are about, but a question after that.
            printed = "".join(self._hear(fd) for fd in ready if fd == self._terminal)
            is_question = bool(notes) and not notes.endswith("\n")
            while is_question and self._terminal in self._decoders and select.select([self._terminal], [], [], 0)[0]:
                printed += self._hear(self._terminal)
            said, newline, question = notes.rpartition("\n")
            self.text += said + newline + printed + question
            self._answer()

    def _hear(self, fd: int) -> str:
        try:
            data = os.read(fd, 65536)
        except OSError:  # Linux's way to say that nobody has the other end of a terminal any more
            data = b""
        if not data:
            del self._decoders[fd]
            return ""
        return self._decoders[fd].decode(data)

    def _answer(self) -> None:
        asked = self.text[self._answered :]
        question = _QUESTION.search(asked)
        answer = SECRETS.get(question["kind"], SECRETS["passphrase"]) if question else "y" * bool(_AGREE.search(asked))
        if answer:
            self._answered = len(self.text)
            if question:
                self._await_silence()
            os.write(self._terminal, answer.encode() + b"\n")

    def _await_silence(self) -> None:
        """Until the terminal shows no more what is typed: some programs ask first, and then drop what was typed before."""
        deadline = time.monotonic() + 5.0
        while termios.tcgetattr(self._terminal)[3] & termios.ECHO and time.monotonic() < deadline:
            time.sleep(0.01)


def _weaken_keys(machine: Machine) -> None:
    """Make the passphrases of keys that were made just now quick to try: a second for each signature is for thieves."""
    secret = SECRETS["passphrase"].encode()
    for path in machine.top.glob("home/.config/pacball/keys/own/*.pem"):
        if path.read_bytes().startswith(b"-----BEGIN OPENSSH") and path not in machine.weakened:
            key = load_ssh_private_key(path.read_bytes(), secret)
            protection = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(secret)
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, protection))
            machine.weakened.add(path)


def _make_plain(terminal: int) -> None:
    """No carriage returns in what is printed."""
    modes = termios.tcgetattr(terminal)
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, modes)


def _fault(step: Step, code: int, text: str) -> str:
    """What is otherwise than the guide says; empty if nothing is."""
    if code != step.code:
        return f"ends with code {code}, not {step.code}"
    if "Traceback" in text or "Warning:" in text:
        return "a fault of Python's"
    # Notes and errors come by another way than the rest, and now and then earlier or later than on a screen.
    lines = text.splitlines()
    notes, printed = (iter([one for one in lines if one.startswith(_NOTE) is kind]) for kind in (True, False))
    for line in step.shown:
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        if not any(pattern.fullmatch(one.rstrip()) for one in (notes if line.startswith(_NOTE) else printed)):
            return f"does not print, in this place: {line}"
    return ""
