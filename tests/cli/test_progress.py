"""What people see on terminals of all kinds while something goes on, and what programs read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.terminal import BEGIN, COMMAND, Terminal

LONG = "/a/path/that/is/much/longer/than/the/terminal/is/wide/" + "x" * 100 + "/end"
WORK = f"""
import sys, time
from paccli.options import ProgressMode
from paccli.output import reporting
from paccli.progress import showing
from pacstore.source import Condition, SourceState
LONG = {LONG!r}

def states():
    return (
        SourceState("https://one.example/p", 3, 1, 0, 1000.0, Condition.GOOD),
        SourceState("https://two.example/p", 4, 1, 0, 0.0, Condition.SLOW, "drips", 1),
    )

def work(mode, step, *, quiet=False, as_json=False, sources=states):
    with reporting(as_json=as_json, progress=ProgressMode(mode)) as output:
        with showing(output, quiet=quiet, sources=sources) as progress:
            progress.begin("read\\x1bing", None)
            progress.begin("downloading", 4_000_000)
            progress.advance(1_000_000)
            step(output, progress)
        output.text("done")
        output.result({{"answer": 42}})
"""
WAIT = "\ndef wait(output, progress):\n    sys.stdin.readline()\n"
"""A step that ends when the terminal's user presses a key."""


def on_terminal(rest: str, **options):
    return Terminal(BEGIN + WORK + WAIT + rest, **options)


@pytest.mark.parametrize("columns", [80, 40, 20])
def test_a_bar_of_the_width_of_the_terminal_which_is_gone_afterwards(columns):
    terminal = on_terminal("work('auto', wait)", columns=columns)
    terminal.until(lambda seen: "one.example" in seen or (columns == 20 and "downloading" in seen))
    lines = terminal.screen
    terminal.press()
    assert terminal.end() == 0
    assert lines[0].startswith("downloading")
    assert all(len(line) < columns for line in lines)
    assert len(lines) == 3
    assert ("1.0 of 4.0 MB" in lines[0]) == (columns > 30)
    assert ("━" in lines[0]) == (columns == 80)
    assert terminal.screen == ["done"]
    assert "\x1b[?25l" not in terminal.seen  # the cursor was never hidden


def test_a_terminal_that_becomes_narrower():
    terminal = on_terminal("work('auto', wait)", columns=100)
    terminal.until(lambda seen: "━" in seen)
    terminal.resize(50)
    terminal.until(
        lambda seen: "━" not in seen.rpartition("downloading")[2] and "of 4.0 MB" in seen.rpartition("downloading")[2]
    )
    terminal.press()
    assert terminal.end() == 0


def test_what_is_printed_above_a_bar_is_whole_and_in_order():
    terminal = on_terminal(
        """
def step(output, progress):
    wait(output, progress)
    progress.warn("bad: " + LONG)
    output.note("note: " + LONG)
    output.text("text: " + LONG + " [bold]not markup[/bold] :smile:")
    wait(output, progress)
work('auto', step)""",
        columns=60,
    )
    terminal.until(lambda seen: "downloading" in seen)
    terminal.press()
    terminal.until(lambda seen: "smile" in seen)
    terminal.press()
    assert terminal.end() == 0
    assert terminal.screen == [
        f"pacball: warning: bad: {LONG}",
        f"note: {LONG}",
        f"text: {LONG} [bold]not markup[/bold] :smile:",
        "done",
    ]


def test_what_goes_to_a_file_stays_out_of_the_terminal(tmp_path):
    with open(tmp_path / "out", "wb") as file:
        terminal = on_terminal(
            """
def step(output, progress):
    wait(output, progress)
    output.text("the plan")
work('auto', step)""",
            stdout=file.fileno(),
        )
        terminal.until(lambda seen: "downloading" in seen)
        terminal.press()
        assert terminal.end() == 0
    assert (tmp_path / "out").read_text() == "the plan\ndone\n"
    assert "the plan" not in terminal.seen
    assert terminal.screen == []


def test_quick_work_shows_nothing_and_imports_nothing_for_it():
    terminal = on_terminal("work('auto', lambda *_: None)\nprint('rich' in sys.modules)")
    assert terminal.end() == 0
    assert terminal.seen == "done\r\nFalse\r\n"


@pytest.mark.parametrize(
    ("call", "environment"),
    [
        ("work('none', step)", {}),
        ("work('auto', step, quiet=True)", {}),
        ("work('auto', step, as_json=True)", {}),
        ("work('auto', step)", {"TERM": "dumb"}),
    ],
)
def test_terminals_without_a_bar(call, environment):
    terminal = on_terminal(f"\nstep = lambda *_: time.sleep(0.8)\n{call}", **environment)
    assert terminal.end() == 0
    assert "downloading" not in terminal.seen
    assert "\x1b" not in terminal.seen


def test_a_log_gets_lines(tmp_path):
    program = f"{BEGIN}{WORK}\nfrom paccli.progress import Lines\nLines.seconds = 0.05\nwork('bar', lambda *_: time.sleep(0.5))"
    done = run_program(program)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("pacball: downloading: 1.0 of 4.0 MB, ")
    assert lines[1] == "pacball:   https://two.example/p is slow: drips"
    assert done.stdout == "done\n"


def test_no_color():
    terminal = on_terminal("work('auto', wait)", NO_COLOR="1")
    terminal.until(lambda seen: "downloading" in seen)
    terminal.press()
    assert terminal.end() == 0
    assert "\x1b[3" not in terminal.seen
    assert "━" in terminal.seen


def test_a_terminal_that_knows_ascii_only():
    terminal = on_terminal("work('auto', wait)", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    terminal.until(lambda seen: "downloading" in seen)
    terminal.press()
    assert terminal.end() == 0
    assert "####---" in terminal.screen[0] or "#---" in terminal.seen.replace("\x1b[0m", "").replace("\x1b[2m", "")


def test_an_interrupt_leaves_a_clean_screen():
    terminal = on_terminal("work('auto', wait)")
    terminal.until(lambda seen: "downloading" in seen)
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 130
    assert terminal.screen == ["pacball: interrupted; run the same command again to continue"]


def run_program(program: str, **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def events_of(text: str) -> list[dict]:
    lines = text.splitlines()
    found = [json.loads(line) for line in lines]
    assert all(list(one)[:2] == ["event", "at"] for one in found)
    assert [one["at"] for one in found] == sorted(one["at"] for one in found)
    return found


PROGRESS = {
    "event",
    "at",
    "phase",
    "bytes_done",
    "bytes_total",
    "bytes_per_second",
    "seconds",
    "seconds_left",
}
SOURCE = {
    "event",
    "at",
    "name",
    "bytes_downloaded",
    "bytes_per_second",
    "requests",
    "retries",
    "state",
    "error",
    "failures",
}


def test_events_in_their_order():
    program = f"{BEGIN}{WORK}\nwork('json', lambda output, progress: (progress.advance(3_000_000), progress.warn('odd\\x1b')))"
    done = run_program(program)
    assert done.returncode == 0
    events = events_of(done.stdout)
    assert [one["event"] for one in events] == [
        "phase",
        "progress",
        "phase",
        "warning",
        "progress",
        "source",
        "source",
        "result",
    ]
    reading, _, downloading, warning, end, good, slow, result = ({**one, "at": 0} for one in (events[1], *events[1:]))
    assert set(end) == PROGRESS
    assert (reading["phase"], reading["bytes_total"], reading["seconds_left"]) == ("read\\x1bing", None, None)
    assert (downloading["phase"], downloading["bytes_total"]) == ("downloading", 4_000_000)
    assert (end["bytes_done"], end["bytes_total"], end["seconds_left"]) == (4_000_000, 4_000_000, 0)
    assert set(good) == SOURCE
    assert (slow["name"], slow["state"], slow["error"]) == ("https://two.example/p", "slow", "drips")
    assert warning == {"event": "warning", "at": 0, "message": "odd\\x1b"}
    assert result == {"event": "result", "at": 0, "answer": 42}
    assert done.stderr == "pacball: warning: odd\\x1b\n"


def test_events_come_while_it_goes_on_and_at_most_about_once_a_second():
    program = f"{BEGIN}{WORK}{WAIT}work('json', wait)"
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, stdin=-1, stdout=-1, text=True
    ) as process:
        began = time.monotonic()
        lines = []
        while sum('"progress"' in line for line in lines) < 4:
            lines.append(process.stdout.readline())
        passed = time.monotonic() - began
        process.stdin.write("\n")
        process.stdin.close()
        lines += process.stdout.readlines()
        assert process.wait(30) == 0
    assert passed > 2  # the first is the end of the phase before
    events = events_of("".join(lines))
    # What has not changed is not told again.
    assert sum(one["event"] == "source" for one in events) == 2


def test_an_interrupt_is_the_last_event():
    paths = os.pathsep.join(path for path in sys.path if path)
    program = f"{BEGIN}{WORK}{WAIT}work('json', wait)"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=-1,
        stdout=-1,
        stderr=-1,
        text=True,
    ) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    last = events_of("".join(lines) + out)[-1]
    assert (last["event"], last["error"], last["exit_code"]) == ("error", "interrupted", 130)


def test_events_of_threads_are_never_mixed():
    rest = """
import threading
def step(output, progress):
    def warn(n):
        for _ in range(200):
            progress.warn(str(n) * 5000)
    threads = [threading.Thread(target=warn, args=(n,)) for n in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
work('json', step)"""
    events = events_of(run_program(BEGIN + WORK + rest).stdout)
    messages = [one["message"] for one in events if one["event"] == "warning"]
    assert len(messages) == 1600
    assert all(len(set(message)) == 1 for message in messages)


def test_work_goes_on_when_nobody_reads_the_events(tmp_path):
    program = f"""{BEGIN}{WORK}{WAIT}
def step(output, progress):
    wait(output, progress)
    for _ in range(100):
        progress.warn("x" * 1000)
    open({str(tmp_path / "proof")!r}, "w").close()
work('json', step)
raise SystemExit(1 if "fail" in sys.argv else 0)"""
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=-1,
        stdout=-1,
        stderr=-1,
        text=True,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        _, errors = process.communicate("\n")
    assert process.returncode == 0
    assert (tmp_path / "proof").exists()
    assert "Traceback" not in errors


def test_work_goes_on_when_nobody_reads_the_warnings(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    rest = f"""
def step(output, progress):
    progress.warn("nobody hears this")
    open({str(tmp_path / "proof")!r}, "w").close()
work('none', step)"""
    paths = os.pathsep.join(path for path in sys.path if path)
    ended = subprocess.run(
        [sys.executable, "-c", BEGIN + WORK + rest],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
    assert (tmp_path / "proof").exists()


def test_an_error_is_the_last_event_and_keeps_its_exit_code_when_nobody_reads_it(pacball, tmp_path):
    words = ("verify", "No-1-x", "--root", tmp_path)
    done = pacball.process(*words, "--progress=json")
    assert done.returncode == 3
    (event,) = events_of(done.stdout)
    plain = pacball.process(*words, "--json")
    assert {k: v for k, v in event.items() if k not in ("event", "at")} == json.loads(plain.stdout)
    assert event["event"] == "error"
    reader, writer = os.pipe()
    os.close(reader)
    for mode in ("--progress=json", "--json"):
        paths = os.pathsep.join(path for path in sys.path if path)
        argv = [sys.executable, "-c", COMMAND, *map(str, words), mode]
        ended = subprocess.run(
            argv, env={**os.environ, "PYTHONPATH": paths}, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
        assert (ended.returncode, "Traceback" in ended.stderr) == (3, False)
    os.close(writer)


def test_every_long_command_has_events(pacball, tmp_path, trees):
    store, root = tmp_path / "store", tmp_path / "root"
    for words, phases in (
        (("publish", trees[0], "Demo-1.0-x86_64", "--to", store), ["publishing"]),
        (("install", "Demo-1.0-x86_64", "--from", store, "--root", root), ["preparing", "downloading", "syncing"]),
        (("verify", "Demo-1.0-x86_64", "--root", root), ["verifying"]),
        (("store", "check", "--store", store), ["checking"]),
        (("store", "reindex", "--store", store), ["indexing"]),
        (("store", "backup", "--store", store, "--to", tmp_path / "backup", "--packs"), ["backing up"]),
        (("store", "restore", tmp_path / "backup", "--to", tmp_path / "again"), ["restoring", "restoring packs"]),
    ):
        result = pacball.run(*words, "--progress=json")
        assert result.exit_code == 0, result.output
        events = events_of(result.stdout)
        assert [one["phase"] for one in events if one["event"] == "phase"] == phases, words
        ends = {one["phase"]: one for one in events if one["event"] == "progress"}
        assert list(ends) == phases
        # What is read beside the frames of a pack is not counted.
        assert all(one["bytes_done"] >= 0.95 * (one["bytes_total"] or 0) for one in ends.values()), ends
        assert events[-1]["event"] == "result"


def test_an_installation_tells_its_plan_first(pacball, tmp_path, store):
    words = ("install", "Demo-1.0-x86_64", "--from", store, "--root", tmp_path / "root")
    planned = pacball.json(*words, "--plan")
    events = events_of(pacball.run(*words, "--progress=json").stdout)
    assert [one["event"] for one in events][:3] == ["phase", "plan", "progress"]
    assert {k: v for k, v in events[1].items() if k not in ("event", "at")}.keys() == planned.keys()
    assert events[1]["bytes_to_download"] == planned["bytes_to_download"]
    assert events[-1]["bytes_total"] == planned["bytes_total"]
