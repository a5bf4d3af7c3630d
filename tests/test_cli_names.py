"""Names that users of other programs know: models by name, configs by name, aliases of options; tables and JSON."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from forked import run_program
from small import call, small_config, small_dataset

import anyrec
from anyrec.cli import app as cli
from anyrec.cli import results
from anyrec.core.errors import ConfigError, ModelError
from anyrec.recommender import Recommender
from anyrec.storage.model_directory import find_model


@pytest.fixture(scope="module")
def fitted():
    config = small_config(training={"epochs": 1, "batch_size": 128, "patience": None})
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def home(fitted, tmp_path_factory):
    """A folder with the run `models/shop.v2`, and one with the default name."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("shop.v2", "model"):
        fitted.save(folder / "models" / name / "model")
    return folder


@pytest.fixture
def there(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


@pytest.mark.parametrize(
    "name", ["models/shop.v2", "models/shop.v2.pth", "models/shop.v2/model", "models/shop.v2/best_model.pth"]
)
def test_a_model_is_found_by_its_name_as_a_file_or_as_a_folder(there, name):
    assert find_model(there / name) == (there / "models" / "shop.v2" / "model").resolve()


def test_a_name_without_a_model_finds_no_other_model_and_names_the_nearest(there):
    for name in ("models/shop.v3.pth", "models/shop.v3", "models/other.pth"):
        with pytest.raises(ModelError, match=r"shop\.v2"):
            find_model(there / name)


def test_a_model_name_alone_is_looked_up_in_models(there):
    named = ("recommend", "--model_name", "shop.v2", "--user_id", "u001")
    assert call(*named)[0] == 0 and call(*named) == call(*named, "--model_dir", "models")


def test_a_config_is_found_by_its_name_in_configs(there, tmp_path):
    from anyrec.data.formats.write_json import write_json

    (there / "configs").mkdir(exist_ok=True)
    config = small_config(name="named", model={"type": "popularity"}, evaluation={"report": False})
    (there / "configs" / "tiny.json").write_text(json.dumps(config))
    write_json(small_dataset(), there / "data.json")
    for name in ("tiny.json", "tiny", "configs/tiny.json"):
        code, out, message = call("train", "--config", name, "--data", "data.json", "--print-config")
        assert code == 0 and json.loads(out)["name"] == "named", message
    code, _, message = call("train", "--config", "none.json", "--data", "data.json")
    assert code == 2 and "none.json" in message


def test_known_users_are_requested_by_id(there, fitted):
    model = ("recommend", "--model_path", "models/shop.v2", "--k", 3)
    code, out, message = call(*model, "--user_id", "u002", "--user-id", "u001")
    assert code == 0, message
    found = json.loads(out)["users"]
    expected = fitted.recommend(["u002", "u001"], 3).column("item_id").to_pylist()
    assert [one["item_id"] for user in found for one in user["recommendations"]] == expected
    code, _, message = call(*model, "--user_id", "u001", "--user_id", "nobody")
    assert code == 2 and "nobody" in message
    code, _, message = call(*model, "--user_id", "u001", "--all", "--output", "x.csv")
    assert code == 2 and "cannot be combined with --all" in message


def test_filters_restrict_the_lists_of_single_users_of_all_users_and_in_python(there, fitted, tmp_path):
    where = {"item.categorical.tags": {"contains": "nurse"}}
    eligible = {
        name
        for name, tags in zip(
            fitted.dataset.ids("item").to_pylist(), fitted.dataset.items["categorical.tags"].to_pylist(), strict=True
        )
        if "nurse" in tags
    }
    filtered = fitted.filtered(where)
    lists = filtered.recommend(None, 4, exclude_seen=False)
    assert len(lists) == 4 * 60 and set(lists.column("item_id").to_pylist()) <= eligible
    (tmp_path / "where.json").write_text(json.dumps(where))
    model = ("recommend", "--model_name", "shop.v2", "--k", 4, "--include-seen")
    for option, value in (("--filters", json.dumps(where)), ("--where", tmp_path / "where.json")):
        code, out, message = call(*model, "--user_id", "u001", option, value)
        assert code == 0, message
        found = [one["item_id"] for one in json.loads(out)["users"][0]["recommendations"]]
        assert found == filtered.recommend(["u001"], 4, exclude_seen=False).column("item_id").to_pylist()
    code, _, message = call(*model, "--all", "--filters", json.dumps(where), "--output_file", tmp_path / "all.jsonl")
    assert code == 0, message
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert len(rows) == len(lists) and {row["item_id"] for row in rows} <= eligible
    saved = Recommender.load(filtered.save(tmp_path / "filtered"))
    assert saved.recommend(["u001"], 4).equals(filtered.recommend(["u001"], 4))
    with pytest.raises(ConfigError, match=r"--where/item\.categorical\.tag"):
        fitted.filtered({"item.categorical.tag": "nurse"})
    for wrong in ("{", "[1]", '{"tags": "nurse"}'):
        assert call(*model, "--user_id", "u001", "--filters", wrong)[0] == 2


def test_a_filter_keeps_the_stages_of_a_pipeline(fitted):
    pins = [{"item": "i001", "position": 1}, {"item": "i002", "position": 2}]
    staged = fitted.with_pipeline({"rerank": {"rules": [{"type": "pin", "items": pins}]}}, progress=False)
    where = {"item.id": {"ne": "i001"}}
    found = staged.filtered(where).recommend(["u000"], 5, exclude_seen=False).column("item_id").to_pylist()
    assert found[1] == "i002" and "i001" not in found
    assert staged.recommend(["u000"], 5, exclude_seen=False).column("item_id").to_pylist()[0] == "i001"


def test_embeddings_are_in_a_result_only_if_they_are_requested(there):
    request = there / "request.json"
    request.write_text(json.dumps({"user_data": [{"user_id": "u001"}], "item_data": [{"item_id": "new"}]}))
    model = ("recommend", "--model_name", "shop.v2", "--data", request)
    plain, whole = (json.loads(call(*model, *more)[1]) for more in ((), ("--embeddings",)))
    assert "embedding" not in plain["users"][0] and "embedding" not in plain["items"][0]
    assert len(whole["users"][0].pop("embedding")) == len(whole["items"][0].pop("embedding")) == 16
    assert plain == whole


def test_a_terminal_gets_tables_and_a_pipe_gets_json(there, fitted, monkeypatch):
    request = there / "request.json"
    request.write_text(json.dumps({"user_data": [{"user_id": "u001"}], "item_data": [{"item_id": "new"}]}))
    model = ("--model_name", "shop.v2")
    commands = [
        ("recommend", *model, "--data", request, "--k", 40, "--include-seen"),
        ("similar", *model, "--item", "i001"),
        ("search", *model, "--text", "a thing for a nurse", "--space", "tower"),
        ("evaluate", *model, "--truth", there / "truth.json"),
    ]
    (there / "truth.json").write_text(json.dumps({"u001": ["i003"]}))
    for command in commands:
        code, out, message = call(*command)
        assert code == 0 and json.loads(out), message
        assert call(*command, "--json")[1] == out
        code, shown, message = call(*command, "--table")
        assert code == 0 and not shown.lstrip().startswith(("{", "[")), message
    shown = call(*commands[0], "--table")[1]
    assert "user u001" in shown and "Thing" in shown and "new" in shown and "scores of pairs" in shown
    monkeypatch.setattr("sys.stdout", type("Terminal", (), {"isatty": lambda self: True})())
    from anyrec.cli.options import wants_json

    assert not wants_json(None) and wants_json(True) and not wants_json(False)


def test_a_table_of_many_users_says_how_many_it_leaves_out(fitted, capsys):
    from anyrec.serving.result import infer, request_of_ids

    request = request_of_ids(fitted, fitted.dataset.ids("user"))
    results.show_result(fitted, request, infer(fitted, request, 2))
    out, err = capsys.readouterr()
    assert out.count("user u0") == results.MOST_USERS and "40 more users" in err


def test_python_m_anyrec_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "anyrec", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"anyrec {anyrec.__version__}")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o default -F _anyrec_completion anyrec"),
        ("zsh", "compdef _anyrec_completion anyrec"),
        ("fish", "complete --command anyrec --no-files"),
    ],
)
def test_python_m_anyrec_prints_the_completion_of_the_program_anyrec(shell, line):
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # the shell is the one that the option names
    _, script, _ = run_program("-m", "anyrec", "--show-completion", shell, **named)
    assert line in script and "_ANYREC_COMPLETE=complete_" in script and "python" not in script.lower()


def commands_of(group, path=()):
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        yield (*path, name), command
        if inner is not None:
            yield from commands_of(command, (*path, name))


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_help_text_is_cut_off_at_any_width(width, monkeypatch):
    import typer

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((width, 40)))
    top = typer.main.get_command(cli.app)
    shown = " ".join(call("--help")[1].split())
    for path, command in commands_of(top):
        if len(path) == 1:
            assert " ".join(command.help.split("\n\n")[0].split()) in shown
        text = call(*path, "--help")[1]
        squeezed = "".join(text.split())
        for parameter in command.params:
            for name in parameter.opts if parameter.param_type_name == "option" else ():
                assert name in squeezed, (path, name)
            if parameter.help:
                assert "".join(parameter.help.split()) in squeezed, (path, parameter.name)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("anyrec tra", {"train"}),
        ("anyrec synth ", {"planted", "amazon"}),
        ("anyrec recommend --us", {"--user-id", "--user_id"}),
        ("anyrec schema re", {"result"}),
        ("anyrec evaluate --part ", {"test", "validation"}),
        ("anyrec plugins gat", {"gated"}),
        ("anyrec index --type ", {"exact", "faiss"}),
    ],
)
def test_the_shell_completes_commands_options_and_values(words, expected):
    asked = {"_ANYREC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    program = "import sys; from anyrec.cli.app import main; sys.argv = ['anyrec']; main()"
    _, completed, message = run_program("-c", program, **asked)
    assert expected <= set(completed.split()), message


def test_every_command_that_reads_data_or_requests_takes_a_config_and_single_keys():
    import typer

    top = typer.main.get_command(cli.app)
    found = {" ".join(path): command for path, command in commands_of(top)}
    named = {"init", "validate", "describe", "doctor", "train", "convert", "search", "similar"}
    reading = {name for name, command in found.items() if any("--data" in one.opts for one in command.params)}
    assert {"train", "recommend", "embed", "evaluate", "report"} <= reading
    for name in named | reading:
        options = {one for parameter in found[name].params for one in parameter.opts}
        assert {"--config", "--set", "--verbose", "--quiet"} <= options, name


def test_a_config_of_embed_may_repeat_that_of_the_model_and_changes_are_refused(there, tmp_path):
    arguments = ("embed", "--model_path", "models/model", "--output", tmp_path)
    assert call(*arguments, "--config", "models/model/model/config.json")[0] == 0
    assert pq.read_table(tmp_path / "users.parquet").num_rows == 60
    code, _, message = call(*arguments, "--set", "dim=7")
    assert code == 2 and "dim" in message


@pytest.mark.parametrize("short", [True, False])
def test_verbosity_before_the_command_is_that_after_it(short):
    quiet, verbose = ("-q", "-v") if short else ("--quiet", "--verbose")
    sample = ROOT / "test_input.json"
    for option, position in ((verbose, 0), (verbose, 1)):
        words = ["schema", "dataset"]
        words.insert(position, option)
        assert "finished after" in call(*words)[2]
    assert "finished after" not in call("schema", "dataset")[2]
    assert call(quiet, "schema", "dataset")[2] == call("schema", "dataset", quiet)[2] == ""
    assert call(quiet, "validate", sample)[0] == call("validate", sample)[0]


def test_help_has_a_short_form_everywhere():
    import typer

    assert call("-h")[1] == call("--help")[1]
    for path, _ in commands_of(typer.main.get_command(cli.app)):
        assert call(*path, "-h")[:2] == call(*path, "--help")[:2] and call(*path, "-h")[0] == 0
