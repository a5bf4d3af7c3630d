"""Odd arguments end with a message and an exit code, never with a traceback, and data are printed as they are."""

import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.cli import app as cli
from anyrec.cli import data as cli_data
from anyrec.cli import options as cli_options
from anyrec.cli import results as cli_results
from anyrec.core.errors import InputError


def run(monkeypatch, capsys, *arguments, environment=()):
    """Exit code, output and errors of `anyrec ARGUMENTS`, in this process."""
    monkeypatch.setattr(sys, "argv", ["anyrec", *arguments])
    for name, value in dict(environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_an_unexpected_error_is_one_line_that_names_the_command_and_its_traceback_is_there_on_demand(
    monkeypatch, capsys
):
    monkeypatch.setattr(cli_data, "write", lambda *_: {}["gone"])
    code, out, err = run(monkeypatch, capsys, "schema", "result")
    assert code == 1 and not out and err.count("\n") == 1 and "Traceback" not in err
    assert "anyrec schema failed by an error in the program: KeyError: 'gone' (anyrec/cli/data.py:" in err
    assert "ANYREC_DEBUG=1 shows the traceback" in err
    monkeypatch.setenv("ANYREC_DEBUG", "1")
    with pytest.raises(KeyError):
        cli.main()


def test_arguments_that_are_not_utf8_are_refused_together(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "search", "--text", "a\udcff", "--user", "b\udc80", "--model_path", "m")
    assert code == 2 and "2 faults" in err and "argument 3" in err and "argument 5" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "--text", "x", "--personal", "nan"),
        ("index", "--model_path", "m", "--recall", "nan"),
        ("synth", "x.json", "--noise", "nan"),
        ("synth", "x.json", "--users", "99999999999999999999"),
        ("synth", "x.json", "--seed", "-1"),
        ("recommend", "--data", "x", "--top-k", "99999999999999999999"),
        ("recommend", "--data", "x", "--top-k", "-1"),
        ("evaluate", "--data", "x", "--classification", "--threshold", "nan"),
        ("search", "--text", "x", "--where", "9" * 5000),
        ("search", "--text", "x", "--where", "[" * 100_000),
    ],
)
def test_numbers_out_of_range_and_bad_json_are_errors_of_the_option(monkeypatch, capsys, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2 and err and "Traceback" not in err and not list(tmp_path.iterdir())


def test_all_faults_of_the_moment_are_reported_together(monkeypatch, capsys):
    wrong = ["--context", "x", "--context", "a=NaN", "--context", "b=1", "--context", "b=2", "--now", "soon"]
    code, _, err = run(monkeypatch, capsys, "recommend", "--data", "x", "--model_path", "m", *wrong)
    assert code == 2 and "4 faults" in err


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=8) | st.from_regex(r"[ab]=(1e400|NaN|9{400}|\[1\]|x|\{)", fullmatch=True), max_size=3))
def test_any_context_is_read_or_refused(values):
    with suppress(InputError):
        cli_options.read_context(values)


@pytest.mark.parametrize("text", ["[/b]", "[red]x[/red]", ":smile:", "[bold", "a\x01b", "[link=x]"])
def test_texts_of_the_data_are_printed_as_they_are(capsys, text):
    from rich.table import Table

    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    cli_options.print_tables(table)
    cli_options.console(soft_wrap=True).print(text)
    printed = capsys.readouterr().out
    assert printed.count(text.replace("\x01", "")) + printed.count(text) >= 4
    entry = {"rank": 1, "item_id": text, "score": 0.5, "explanation": {"title": text, "sentence": text}}
    cli_results.show_explained({"users": [{"user_id": text, "recommendations": [entry]}]})


@pytest.mark.parametrize("now", ["0001-01-01", "9999-12-31T23:59:59", "1969-12-31"])
def test_any_moment_makes_a_request(now):
    from small import small_config, small_dataset

    from anyrec.recommender import Recommender

    made = Recommender.from_config(small_config(model={"type": "popularity"}, pipeline={}))
    moment = cli_options.read_now(now)
    answer = made.fit(small_dataset(), progress=False).answer(["u000"], 3, now=moment)
    assert len(answer.table) == 3 and answer.table.equals(made.answer(["u000"], 3, now=moment).table)
