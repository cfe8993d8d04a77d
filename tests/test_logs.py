"""How much is logged: as the command says, or as it is asked; and libraries, which print whole URLs, never more."""

import logging
import os
import subprocess
import sys

import pytest

from scanner.cli import Exit, main
from scanner.logs import OURS, start_logging

SAY = """
import logging, sys
from scanner.logs import start_logging
start_logging(sys.argv[1])
for name in ("scanner.fetching.fetch", "api.app", "aiohttp.client", "urllib3"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger(name).log(level, "at https://example.org/?token=s3cret")
"""


@pytest.fixture(autouse=True)
def levels(monkeypatch):
    """As they were before, whatever a test sets."""
    monkeypatch.delenv("LAESCAN_LOG_LEVEL", raising=False)
    before = {name: logging.getLogger(name).level for name in OURS}
    yield
    os.environ.pop("LAESCAN_LOG_LEVEL", None)  # the command hands it on to its children
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def said(usual, **environ):
    command = [sys.executable, "-c", SAY, usual]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environ})
    return [tuple(line.split()[:2]) for line in done.stderr.splitlines()]


def test_our_own_loggers_follow_and_libraries_do_not():
    ours = ("scanner.fetching.fetch:", "api.app:")
    wanted = {"DEBUG", "INFO", "WARNING"}
    lines = said("warning", LAESCAN_LOG_LEVEL="debug")
    assert {line for line in lines if line[1] in ours} == {(level, name) for level in wanted for name in ours}
    assert {line for line in lines if line[1] not in ours} == {("WARNING", "aiohttp.client:"), ("WARNING", "urllib3:")}
    assert {level for level, name in said("info") if name in ours} == {"INFO", "WARNING"}
    assert {level for level, name in said("info", LAESCAN_LOG_LEVEL="error") if name in ours} == set()


@pytest.mark.parametrize("arguments", [["--log-level", "debug", "schema"], ["schema", "--log-level", "debug"]])
def test_the_option_stands_before_the_command_or_behind_it_and_reaches_children(arguments, capsys):
    assert main(arguments) == Exit.OK
    assert logging.getLogger("scanner").level == logging.DEBUG
    assert os.environ["LAESCAN_LOG_LEVEL"] == "debug"
    assert capsys.readouterr().err == ""


def test_a_level_that_is_none_is_a_wrong_setting(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as exited:
        main(["schema", "--log-level", "loud"])
    assert exited.value.code == Exit.USAGE
    monkeypatch.setenv("LAESCAN_LOG_LEVEL", "loud")
    start_logging("info")
    assert logging.getLogger("scanner").level == logging.INFO, "until the settings refuse it in words"
    assert main(["verify", str(tmp_path / "none")]) == Exit.USAGE
    assert "log_level" in capsys.readouterr().err
