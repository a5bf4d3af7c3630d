"""How a command ends: exit codes, messages, signals, and a terminal that cannot show every character."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrec.cli import process as cli_process
from anyrec.cli.process import Stopped, run_command
from anyrec.core.errors import AnyrecError, Fault, InputError, MissingDependency


def ended(program, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        run_command(program)
    return stop.value.code, capsys.readouterr().err  # type: ignore[return-value]


def failing(error: BaseException):
    def program():
        raise error

    return program


def test_errors_end_with_the_documented_exit_codes_and_no_traceback(capsys):
    for error, code, message in (
        (AnyrecError("no"), 1, "no"),
        (InputError(Fault("here", "it is wrong.")), 2, "here: it is wrong."),
        (MissingDependency("faiss", "faiss", "This index"), 3, "pip install"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 2, "/tmp/x: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/tmp/x"), 2, "/tmp/x: this process has no permission"),
        (OSError(errno.ESTALE, "Stale file handle", "/tmp/x"), 2, "/tmp/x"),
    ):
        assert ended(failing(error), capsys)[0] == code
        found = ended(failing(error), capsys)
        assert found[0] == code and message in found[1] and "Traceback" not in found[1]


def test_what_was_added_to_an_error_on_its_way_is_printed(capsys):
    error = AnyrecError("no")
    error.add_note("Try this.")
    assert ended(failing(error), capsys) == (1, "no\nTry this.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_the_command_and_gives_its_exit_code(number, capsys):
    cleaned = []

    def program():
        try:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), number)  # a second signal at once does not interrupt the cleaning up
            cleaned.append(True)

    inherited = signal.signal(number, signal.SIG_DFL)  # it is ignored if the tests were started in the background
    try:
        assert ended(program, capsys) == (128 + number, f"stopped by {number.name}.\n")
        assert cleaned == [True] and signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, inherited)


def test_an_ignored_signal_stays_ignored_and_stopping_is_no_exception(capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_command(lambda: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not issubclass(Stopped, Exception)


@given(st.text(st.characters(codec="utf-16") | st.characters(categories=["Cs"]), max_size=20))
def test_characters_that_an_encoding_lacks_are_printed_so_that_json_reads_them_back(text):
    import codecs

    codecs.register_error("anyrec.escape", cli_process._escaped)
    printed = json.dumps(text, ensure_ascii=False).encode("ascii", "anyrec.escape")
    assert json.loads(printed) == json.loads(json.dumps(text))


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii", "C locale"],
)
def test_a_terminal_without_unicode_stops_no_command(environment, tmp_path):
    program = (
        "from anyrec.cli.process import run_command; from anyrec.cli.options import out, err, write; "
        "from pathlib import Path\n"
        "def program():\n"
        "    out.print('note: caf\\u00e9 [/b] \\u2026'); err.print('\\U0001f600')\n"
        "    write('[\"\\u00e9\\U0001f600\"]', None); write('[\"\\u00e9\"]', Path('file.json'))\n"
        "run_command(program)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env={**os.environ, **environment}, cwd=tmp_path, text=True
    )
    assert done.returncode == 0, done.stderr
    note, printed = done.stdout.splitlines()
    assert note == "note: caf\\u00e9 [/b] \\u2026" and json.loads(printed) == ["é😀"]
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == ["é"]


def test_a_full_or_closed_standard_output_is_one_message_and_no_traceback():
    program = "from anyrec.cli.process import run_command; run_command(lambda: print('x' * 100_000))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "/dev/stdout: the disk is full" in done.stderr and "Traceback" not in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
