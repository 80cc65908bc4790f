"""For all tests: a run in which a test was skipped fails when asked to (`--fail-on-skip`, as make does)."""

import signal

import pytest

# Started in the background of a script, a run inherits that ^C is ignored, and would hand that on to the commands it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="fail the run if any test is skipped")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--fail-on-skip") or reporter is None or exitstatus != 0:
        return
    if reporter.stats.get("skipped"):
        reporter.write_line("skipped tests are failures here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
