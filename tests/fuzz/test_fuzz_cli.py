"""Any command line ends with an answer or a message, never with a traceback."""

import inspect
import json
import os

import pytest
from hostile import FUZZ, TEXTS
from hypothesis import given
from hypothesis import strategies as st
from small import small_config, small_dataset
from typer.main import get_command
from typer.testing import CliRunner

from anyrec.cli import app as cli
from anyrec.core.errors import AnyrecError
from anyrec.data.formats.write_json import write_json
from anyrec.recommender import Recommender

SLOW = {"demo", "train", "report"}
"""Commands that train; their options are fuzzed through `--help` and bad values only."""
VALUES = [text for text in TEXTS if text != "/dev/zero" and not text.startswith("http")]


def commands():
    """(name, options) of each command, those of sub-applications included."""
    found = []
    pending = [((), get_command(cli.app))]
    while pending:
        name, command = pending.pop()
        inner = getattr(command, "commands", None)
        if inner is not None:
            pending += [((*name, key), one) for key, one in inner.items()]
        else:
            options = [option for param in command.params for option in param.opts if option.startswith("-")]
            found.append((name, options))
    return sorted(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a data file, a config, a request and a model."""
    folder = tmp_path_factory.mktemp("cli")
    write_json(small_dataset(), folder / "data.json")
    (folder / "request.json").write_text(json.dumps({"user_data": [{"user_id": "u001"}]}))
    (folder / "cfg.json").write_text(json.dumps(small_config()))
    config = small_config(training={"epochs": 1, "batch_size": 128})
    Recommender.from_config(config).fit(small_dataset(), progress=False).save(folder / "model")
    return folder


@FUZZ
@given(data=st.data())
def test_a_command_ends_with_an_answer_or_a_message(place, data):
    name, options = data.draw(st.sampled_from([one for one in commands() if one[0][-1] not in SLOW]))
    words = st.sampled_from(
        [
            "data.json",
            "request.json",
            "cfg.json",
            "model",
            "out.json",
            "3",
            "0",
            "-1",
            "1e9",
            "nan",
            "a=b",
            "u001",
            "i001",
            *VALUES,
        ]
    )
    arguments = data.draw(st.lists(words, max_size=2))
    for option in data.draw(st.lists(st.sampled_from([*options, "--nope"]), max_size=4)):
        arguments += [option, *data.draw(st.lists(words, max_size=1))]
    before = os.getcwd()
    os.chdir(place)
    try:
        result = CliRunner().invoke(cli.app, [*name, *(argument.replace("\0", "") for argument in arguments)], input="")
    finally:
        os.chdir(before)
    of_a_file = (
        isinstance(result.exception, OSError) and result.exception.filename
    )  # a fault at the edge: tests/test_process.py
    if result.exception is not None and not isinstance(result.exception, (SystemExit, AnyrecError)) and not of_a_file:
        raise result.exception


@pytest.mark.parametrize("name", [" ".join(name) for name, _ in commands()])
def test_every_command_describes_itself(name):
    result = CliRunner().invoke(cli.app, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert inspect.cleandoc(result.output)
