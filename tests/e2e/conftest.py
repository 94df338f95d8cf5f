"""The binary as a user runs it. MC_TEST_BINARY names it; default: the asan build's."""
import json
import os
import pathlib
import signal
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("MC_TEST_BINARY", str(ROOT / "build" / "asan" / "mooncake"))
MODEL = str(ROOT / "models" / "tiny-random")
TIMEOUT_S = 120  # of one process; only a hang comes near it


def environment(**variables):
    """Without the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MC_")}
    return {**kept, **variables}


def mooncake(*arguments, stdin=b"", **variables):
    """Run to the end; bytes in, bytes out."""
    return subprocess.run([BINARY, *map(os.fsencode, arguments)], input=stdin, timeout=TIMEOUT_S,
                          capture_output=True, check=False, env=environment(**variables))


def default_signals():
    """What a shell gives a command, also where these tests run in the background and ignore some."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments, **options):
    """Start and leave running."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
               "preexec_fn": default_signals, **options}
    return subprocess.Popen([BINARY, *map(os.fsencode, arguments)], env=environment(), **options)


def answer(*arguments, **options):
    """What `mooncake run MODEL arguments --json` printed, as a dictionary."""
    done = mooncake("run", MODEL, *arguments, "--json", **options)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 1 and done.stdout.endswith(b"\n")
    return json.loads(done.stdout)


@pytest.fixture(scope="session", autouse=True)
def built():
    """Say what is missing once, not in every test."""
    if not os.access(BINARY, os.X_OK):
        pytest.exit(f"{BINARY} is not there: build it first (make test does)", returncode=1)
