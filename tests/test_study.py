"""`anyrec tune`: the search space, the course of a study, what a crash costs, and the report."""

import json
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from forked import start_program
from small import call, small_config, small_dataset

from anyrec.core.config import TuneConfig
from anyrec.core.config.tune import seconds_of
from anyrec.core.discovery import discover
from anyrec.core.errors import AnyrecError, ConfigError, OutputError
from anyrec.core.load_config import load_config
from anyrec.recommender import Recommender
from anyrec.study.driver import StudyDriver, trial_text
from anyrec.study.journal import JOURNAL, Journal
from anyrec.study.marks import marked
from anyrec.study.pages import headline, optimism
from anyrec.study.result import Trial
from anyrec.study.space import Searched, active, parse_search, search_space, short_names
from anyrec.study.trial_configs import TrialConfigs
from anyrec.study.trials import TrialRunner
from anyrec.study.tune import tune

pytest.importorskip("optuna", reason="pip install 'anyrec[tune]'")
SEARCH = {
    "training.optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
    "dim": {"low": 8, "high": 16, "step": 8},
    "fusion.type": ["simple", "attention"],
    "fusion.num_heads": [1, 2],
}
TRIALS = 5
DATA = small_dataset(users=40, items=24, each=6)


def config(folder, **changes):
    tune_options = {"startup_trials": 3, "pruner": "none", **changes.pop("tune", {})}
    training = {"epochs": 2, "batch_size": 128, "patience": None}
    return small_config(
        name="s",
        output_dir=str(folder),
        dim=8,
        training=training,
        tune=tune_options,
        features={"text": None},
        **changes,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study that nothing interrupted."""
    return tune(config(tmp_path_factory.mktemp("study")), DATA, trials=TRIALS, search=SEARCH)


def space_of(search, **changes):
    """The search space of a config."""
    base, _ = load_config(small_config(tune={"search": search}, **changes))
    return search_space(TrialConfigs(base, discover(), DATA))


def values(result):
    return [(one.number, one.state, one.values, one.objectives) for one in result.trials]


# -- the search space --------------------------------------------------------------------------------------------------


def test_options_of_the_command_line_describe_ranges_and_lists():
    marks = {"dim": TuneConfig.model_validate({"search": {"dim": {"low": 1, "high": 2}}}).search["dim"]}
    found = parse_search(["a.b=1e-4..0.1:log", "c=8..64:step=8", "d=x,y", "e=[1, 2.5, null]", "dim"], lambda: marks)
    assert found == {
        "a.b": {"low": 1e-4, "high": 0.1, "log": True},
        "c": {"low": 8, "high": 64, "step": 8},
        "d": ["x", "y"],
        "e": [1, 2.5, None],
        "dim": {"low": 1, "high": 2},
    }
    assert parse_search(["auto"], lambda: marks) == {"dim": {"low": 1, "high": 2}}


def test_all_texts_that_are_not_understood_are_reported_together():
    with pytest.raises(ConfigError) as error:
        parse_search(["a=1..x", "=3", "b=1..2:lag", "nothing", "c=[1"], dict)
    assert len(error.value.faults) == 5 and all(fault.hint for fault in error.value.faults)


def test_a_range_is_of_integers_if_the_key_takes_only_integers():
    dim, dropout = space_of({"dim": {"low": 8, "high": 30, "step": 8}, "id_dropout": {"low": 0, "high": 0.5}})
    assert dim.integer and dim.high == 24 and not dropout.integer
    (rate,) = space_of({"training.optimizer.learning_rate": {"low": 1, "high": 2}})
    assert not rate.integer


def test_options_of_a_component_are_searched_with_the_types_that_have_them():
    space = {one.key: one for one in space_of(SEARCH)}
    assert space["fusion.num_heads"].when == {"fusion.type": ["attention"]} and not space["dim"].when
    both = space_of({"fusion.type": ["simple", "attention"], "fusion.dropout": {"low": 0.0, "high": 0.5}})
    assert all(not one.when for one in both)


def test_keys_follow_those_that_their_conditions_name():
    search = {
        "fusion.dropout": {"low": 0.0, "high": 0.5, "when": {"fusion.num_heads": [2]}},
        "fusion.num_heads": {"choices": [1, 2], "when": {"fusion.type": ["attention"]}},
        "fusion.type": ["simple", "attention"],
    }
    space = space_of(search)
    assert [one.key for one in space] == ["fusion.type", "fusion.num_heads", "fusion.dropout"]
    values = {"fusion.type": "attention", "fusion.num_heads": 2}
    assert active(values, space[2]) and not active({"fusion.type": "simple"}, space[2])
    circle = {"id_dropout": {"low": 0.0, "high": 0.5, "when": {"dim": [8]}}, "dim": {"choices": [8, 16]}}
    circle["dim"]["when"] = {"id_dropout": [0.1]}
    with pytest.raises(ConfigError, match="the conditions of dim, id_dropout depend on each other"):
        space_of(circle)


@pytest.mark.parametrize("key", ["card.license", "feast.timeout_seconds", "index.type", "cluster.workers"])
def test_keys_that_are_read_after_training_are_not_searched(key):
    with pytest.raises(ConfigError, match="does not read it"):
        space_of({key: [1, 2]})


def test_all_bad_keys_and_values_of_a_space_are_reported_together():
    search = {
        "id_dropout": {"low": 0.0, "high": 1.5},
        "fusion.type": ["simple", "gatedd"],
        "trainig.epochs": [1, 2],
        "split.validation": {"low": 0.1, "high": 0.3},
        "pipeline.retrieve.k": [10, 20],
        "loss.margin": {"low": 0.1, "high": 1.0},
        "fusion.dropout": {"low": 0.0, "high": 0.5, "when": {"loss.type": ["bpr"]}},
    }
    with pytest.raises(ConfigError) as error:
        space_of(search)
    text = str(error.value)
    for part in ("id_dropout", "gatedd", "trainig", "what the metric measures", "does not read it", "loss/margin"):
        assert part in text.replace("loss.margin", "loss/margin"), part
    assert "'loss.type', which is not searched" in text
    with pytest.raises(ConfigError) as error:
        load_config({"tune": {"search": {"dim": {"low": 9, "high": 3}, "loss": {"low": 1}}, "objectives": ["speed"]}})
    assert len(error.value.faults) == 3


def test_the_default_space_has_the_marked_keys_that_have_an_effect():
    config, _ = load_config(small_config(fusion={"type": "attention"}, loss={"type": "full_softmax"}))
    keys = set(marked(config, discover()))
    assert {"training.optimizer.learning_rate", "dim", "fusion.num_layers", "loss.temperature"} <= keys
    found = {one.key for one in search_space(TrialConfigs(config, discover(), DATA))}
    assert "negative_ratio" in keys - found, "a full softmax samples no negatives"
    classical, _ = load_config({"model": {"type": "ease"}})
    assert [*marked(classical, discover())] == ["model.l2"]


def test_names_are_as_short_as_they_can_be():
    keys = ["training.optimizer.learning_rate", "user.feature_dropout", "item.feature_dropout", "fusion.type", "dim"]
    assert list(short_names(keys).values()) == [
        "learning_rate", "user.feature_dropout", "item.feature_dropout", "fusion.type", "dim",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("7", 7)])
def test_durations_have_units(text, seconds):
    assert seconds_of(text) == seconds


# -- the course --------------------------------------------------------------------------------------------------------


def test_the_first_trial_is_the_config_itself_and_the_best_one_is_kept(study):
    first = study.trials[0].values
    assert first == {"training.optimizer.learning_rate": 0.003, "dim": 8, "fusion.type": "simple"}
    complete = [one for one in study.trials if one.state == "complete"]
    assert len(complete) == TRIALS and study.best.objectives[0] == max(one.objectives[0] for one in complete)
    assert {path.parent.name for path in study.folder.glob("trials/*/checkpoints")} == {f"{study.best.number:04d}"}


def test_the_final_model_is_the_best_trial_and_its_config_trains_it_again(study):
    assert study.final_metrics["validation"] == study.metrics["validation"]
    assert study.metrics["validation"]["ndcg@10"] == study.best.objectives[0]
    again = json.loads((study.folder / "best.json").read_text())
    trained = Recommender.from_config(again).fit(DATA, progress=False)
    assert trained.metrics == study.final_metrics
    loaded = Recommender.load(study.folder.parent)
    assert loaded.recommend(["u001"]).equals(trained.recommend(["u001"]))


def test_trials_do_not_see_the_test_part(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(TrialRunner, "measure", lambda self, model, part: seen.append(part) or {"ndcg@10": 0.1})
    result = tune(config(tmp_path), DATA, trials=2, search={"dim": [8, 16]}, final=False)
    assert seen == ["validation", "test"] and result.tests == 1
    assert not (tmp_path / "s" / "model").exists()


def test_a_study_that_was_interrupted_goes_on_as_if_it_was_not(study, tmp_path, monkeypatch):
    """It is interrupted in the middle of a trial, before a suggestion is complete, and while a line is written."""
    epochs = []
    on_epoch = StudyDriver.on_epoch

    def interrupted(self, number, entry):
        epochs.append((number, entry["epoch"]))
        if epochs[-1] in ((2, 1), (4, 2)):
            raise KeyboardInterrupt
        return on_epoch(self, number, entry)

    with monkeypatch.context() as patch:
        patch.setattr(StudyDriver, "on_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(config(tmp_path), DATA, trials=TRIALS, search=SEARCH)
        journal = tmp_path / "s" / "tune" / JOURNAL
        journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "wor')
        Path(f"{journal}.lock").touch()
        with pytest.raises(KeyboardInterrupt):
            tune(config(tmp_path), DATA, trials=TRIALS, search=SEARCH, resume=True)
    suggest = Searched.suggest

    def partly(self, trial):
        if self.key == "dim":
            raise KeyboardInterrupt
        return suggest(self, trial)

    older = tmp_path / "s" / "tracking.json"
    older.write_text("{}")
    result = tune(config(tmp_path), DATA, trials=TRIALS, search=SEARCH, resume=True)
    assert values(result) == values(study)
    assert not older.exists(), "trackers of the final training do not go on with an older run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Searched, "suggest", partly)
        tune(config(tmp_path), DATA, trials=TRIALS + 1, search=SEARCH, resume=True)
    more = tune(config(tmp_path), DATA, trials=TRIALS + 1, search=SEARCH, resume=True, final=False)
    longer = tune(config(tmp_path / "b"), DATA, trials=TRIALS + 1, search=SEARCH, final=False)
    assert values(more) == values(longer) and more.tests == 2
    assert "measured 2 times" in optimism(more)


@pytest.mark.slow
def test_a_study_survives_kill_9(study, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for part in ("users", "items", "interactions"):
        pq.write_table(getattr(DATA, part), folder / f"{part}.parquet")
    (tmp_path / "cfg.json").write_text(json.dumps({**config(tmp_path), "data": {"roles": DATA.roles}}))
    space = tmp_path / "space.json"
    space.write_text(json.dumps(SEARCH))
    command = ["tune", "--config", "cfg.json", "--data", "data", "--trials", "4", "--space", "space.json", "--no-final"]
    process = start_program("-m", "anyrec", *command, folder=tmp_path)
    trial = tmp_path / "s" / "tune" / "trials" / "0001" / "metrics.jsonl"
    while not trial.exists() and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        code, _, error = call(*command)
        assert code == 2 and "this folder has a study" in error
        code, shown, error = call(*command, "--resume")
    finally:
        os.chdir(before)
    assert code == 0, error
    assert "is optimistic" in shown and "best.json" in shown
    expected = [one for one in values(study) if one[0] < 4]
    journal = Journal(tmp_path / "s" / "tune", "s", study.space, ["ndcg@10"], TuneConfig(), 0, 2, None)
    found = [(one.number, one.values[0]) for one in journal.trials()]
    assert found == [(number, objectives[0]) for number, _, _, objectives in expected]


def test_another_study_in_the_folder_is_not_resumed(study):
    folder = study.folder.parent.parent
    with pytest.raises(OutputError, match="--resume"):
        tune(config(folder), DATA, trials=TRIALS, search=SEARCH)
    with pytest.raises(ConfigError, match="What differs: search"):
        tune(config(folder), DATA, trials=TRIALS, search={"dim": [8, 16]}, resume=True)
    with pytest.raises(ConfigError, match="What differs: data"):
        tune(config(folder), small_dataset(), trials=TRIALS, search=SEARCH, resume=True)


def test_a_running_trial_ends_with_the_epoch_in_which_the_time_is_over(tmp_path, monkeypatch):
    clock = iter([0.0] + [100.0] * 1000)  # the second look at the clock is after the first epoch
    monkeypatch.setattr(StudyDriver, "seconds", property(lambda self: next(clock)))
    lines = []
    result = tune(config(tmp_path), DATA, trials=5, timeout="30s", search=SEARCH, final=False, echo=lines.append)
    (only,) = result.trials
    assert (only.state, only.epochs) == ("stopped", 1) and any("time of the search is over" in line for line in lines)
    assert "No trial was completed in the time" in (result.folder / "report.md").read_text()


def over_after(monkeypatch, looks):
    """Let the time be over after the clock was looked at so often; the first look is before the first trial."""
    clock = iter([0.0] * looks)
    monkeypatch.setattr(StudyDriver, "seconds", property(lambda self: next(clock, 100.0)))


@pytest.mark.parametrize("final", [False, True])
def test_a_trial_that_the_time_ended_is_measured_at_its_best_epoch(tmp_path, monkeypatch, final):
    over_after(monkeypatch, 1)
    asked = config(tmp_path)
    asked["training"] |= {"epochs": 30, "average_epochs": 0.5}
    result = tune(asked, DATA, timeout="30s", search={"dim": [8, 16]}, final=final)
    entries = [json.loads(line) for line in (result.folder / "trials/0000/metrics.jsonl").read_text().splitlines()]
    best = max((one["validation"] for one in entries), key=lambda one: one["ndcg@10"])
    assert len(entries) == result.best.epochs == 1, "nothing is trained after the time"
    assert result.metrics["validation"] == result.best.metrics == best
    assert result.best.objectives == [best["ndcg@10"]]
    if final:
        trained = (result.folder.parent / "metrics.jsonl").read_text().splitlines()
        assert len(trained) == 30, "the final model is trained to its end"


def test_the_time_ends_a_trial_of_several_objectives_with_all_of_them(tmp_path, monkeypatch):
    over_after(monkeypatch, 3)
    asked = config(tmp_path, tune={"objectives": ["ndcg@10", "parameters", "seconds"]})
    asked["training"]["epochs"] = 9
    result = tune(asked, DATA, timeout="30s", search={"dim": [8, 16]}, final=False)
    (only,) = result.trials
    metric, parameters, seconds = only.objectives
    assert only.state == "stopped" and only.epochs >= 1 and metric == only.metrics["ndcg@10"]
    assert parameters == sum(one.numel() for one in model_of(result).scorer.parameters())
    assert seconds == pytest.approx(only.seconds) and seconds > 0
    assert f"| {only.epochs} |" in (result.folder / "report.md").read_text().replace("**", "")
    more = tune(asked, DATA, timeout="300s", trials=3, search={"dim": [8, 16]}, final=False, resume=True)
    assert [one.state for one in more.trials] == ["stopped", "complete", "complete"]


def model_of(result):
    """The model of the config of a study's best trial."""
    return Recommender(result.config, discover()).fit(DATA, progress=False).model


def test_a_trial_that_the_time_ends_before_its_first_validation_is_validated_then(tmp_path, monkeypatch):
    over_after(monkeypatch, 2)
    asked = config(tmp_path)
    asked["training"] |= {"epochs": 40, "evaluate_every": 20}
    result = tune(asked, DATA, timeout="30s", search={"dim": [8, 16]}, final=False)
    assert result.best.epochs < 20 and result.metrics["validation"] == result.best.metrics
    assert result.best.objectives == [result.metrics["validation"]["ndcg@10"]]


def test_a_study_without_time_for_a_trial_says_what_to_change(tmp_path, monkeypatch):
    over_after(monkeypatch, 0)
    with pytest.raises(AnyrecError, match="more time than 30s: --timeout"):
        tune(config(tmp_path), DATA, timeout="30s", search={"dim": [8, 16]}, final=False)


def test_only_the_search_counts_as_its_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("anyrec.study.driver.time.monotonic", lambda: now[0])

    def later(self, *_):
        now[0] += 1000
        return {"ndcg@10": 0.1}

    monkeypatch.setattr(Journal, "importance", lambda self: later(self) and {})
    monkeypatch.setattr(TrialRunner, "measure", later)
    result = tune(config(tmp_path), DATA, trials=1, search={"dim": [8, 16]}, final=False)
    assert now[0] >= 2000 and result.seconds == 0
    assert json.loads((result.folder / "study.json").read_text())["seconds"] == 0


def test_a_study_is_printed_for_its_reader(tmp_path):
    lines, wide = [], {f"user.{'x' * 9}{number}": number / 7 for number in range(12)}
    result = tune(config(tmp_path), DATA, trials=1, search={"dim": [8, 16]}, final=False, echo=lines.append)
    assert "StudyResult(1 trial, best" in repr(result)
    assert headline(result) == f"The only trial has ndcg@10 {result.best.objectives[0]:.4f}"
    assert "is of the only trial" in optimism(result) and "1 trials" not in optimism(result)
    assert any(line.endswith("dim 8") for line in lines)
    shown = trial_text("trial   0   complete", Trial(0, "complete", wide, [], {}, 1, 1.0).described()).splitlines()
    assert len(shown) > 2 and all(len(line) <= 79 for line in shown)
    assert all(line.count("user") == 0 and len(line.split()) % 2 == 0 for line in shown[1:]), "a key is by its value"


def journal_of(folder, **options):
    space = [Searched("x", 0.0, 1.0)]
    return Journal(folder, "s", space, ["ndcg@10"], TuneConfig(**options), 0, 9, None)


@pytest.mark.parametrize("pruner", ["auto", "hyperband"])
def test_a_pruner_ends_trials_that_are_behind(pruner, tmp_path):
    journal = journal_of(tmp_path, pruner=pruner)
    ended = 0
    for quality in [*range(20, 28), *range(8)]:
        number, _ = journal.next()
        stopped = False
        for epoch in range(1, 10):
            journal.report(number, epoch, quality + epoch / 10)
            stopped = stopped or journal.should_stop(number)
        ended += stopped
        journal.finish(number, None if stopped else [float(quality)], stopped)
    assert ended >= 4
    (tmp_path / "calm").mkdir()
    calm = journal_of(tmp_path / "calm", pruner="none")
    number, _ = calm.next()
    calm.report(number, 1, 0.0)
    assert not calm.should_stop(number)


def test_values_depend_on_the_seed_and_the_number_of_the_trial_only(tmp_path):
    def first(name, seed):
        (tmp_path / name).mkdir()
        options = TuneConfig(sampler="random")
        journal = Journal(tmp_path / name, name, [Searched("x", 0.0, 1.0)], ["ndcg@10"], options, seed, 9, None)
        return [journal.next()[1]["x"] for _ in range(3)]

    assert first("a", 1) == first("b", 1) != first("c", 2) and len(set(first("d", 1))) == 3


def test_several_objectives_give_a_front(tmp_path):
    options = {"objectives": ["ndcg@10", "parameters"]}
    result = tune(config(tmp_path, tune=options), DATA, trials=4, search={"dim": [8, 16, 24, 32]}, final=False)
    sizes = {one.values["dim"]: one.objectives[1] for one in result.trials}
    assert sorted(sizes.values()) == [sizes[dim] for dim in sorted(sizes)]
    for number in result.front:
        mine = result.trials[number].objectives
        assert not any(one.objectives[0] > mine[0] and one.objectives[1] < mine[1] for one in result.trials)
    assert "## Pareto front" in (result.folder / "report.md").read_text()
    with pytest.raises(ConfigError, match="several objectives"):
        tune(config(tmp_path / "b", tune={**options, "pruner": "median"}), DATA, trials=1, search={"dim": [8]})


def test_a_trial_that_fails_does_not_stop_the_study(tmp_path):
    search = {"training.optimizer.learning_rate": [0.003, 900.0]}
    asked = config(tmp_path)
    asked["training"]["optimizer"] = {"type": "sgd", "learning_rate": 0.003}
    result = tune(asked, DATA, trials=4, search=search, final=False)
    states = {one.values["training.optimizer.learning_rate"]: one.state for one in result.trials}
    assert states[0.003] == "complete"
    assert all("loss is" in one.problem for one in result.trials if one.state == "failed")


def test_workers_are_processes_that_share_the_study(tmp_path):
    search = {"dim": [8, 16], "training.optimizer.learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    result = tune(config(tmp_path), DATA, trials=4, workers=2, search=search, final=False)
    assert [one.state for one in result.trials] == ["complete"] * 4 and [one.number for one in result.trials] == [
        *range(4)
    ]
    alone = tune(config(tmp_path / "b"), DATA, trials=1, search=search, final=False)
    assert alone.trials[0].objectives == pytest.approx(result.trials[0].objectives, abs=1e-4)


# -- the report --------------------------------------------------------------------------------------------------------


def test_the_report_has_all_trials_the_importance_and_a_warning(study):
    text = (study.folder / "report.md").read_text()
    table = text[text.index("## All trials") :]
    assert sum(line.startswith(("| ", "| **")) and "complete" in line for line in table.splitlines()) == TRIALS
    assert set(study.importance) <= set(SEARCH) and sum(study.importance.values()) == pytest.approx(1)
    assert "is optimistic" in text and f"{study.metrics['test']['ndcg@10']:.4f}" in text
    assert "importance.png" in text and (study.folder / "figures" / "importance.png").is_file()
    assert "<h2>What matters</h2>" in (study.folder / "report.html").read_text()
    assert f"{TRIALS} trials" in repr(study) and "<table" in study._repr_html_()
