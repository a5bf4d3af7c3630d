"""YAML is accepted where JSON is: the same values, the same faults, with line numbers."""

import gzip
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from small import call, small_config, small_dataset

from anyrec import Dataset, Recommender
from anyrec.core.errors import ConfigError, DataError
from anyrec.core.load_config import load_config
from anyrec.core.strict_yaml import parse_yaml
from anyrec.data.formats.write_json import write_json

CONFIG = """\
# comments are allowed
name: shop
dim: 16
defaults: fixed
training:
  epochs: 1
  optimizer: {type: adam, learning_rate: 1e-3}
features:
  image: null
  text: {type: hashed, buckets: 99}
evaluation:
  k: [5, 10]
"""


def parsed(text, **options):
    return parse_yaml(text, Path("c.yaml"), ConfigError, **options)


def test_a_config_in_yaml_is_the_config_in_json(tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "c.json").write_text(json.dumps(parsed(CONFIG)))
    config, _ = load_config(tmp_path / "c.yaml")
    assert config == load_config(tmp_path / "c.json")[0]
    assert config.training.optimizer.learning_rate == 0.001 and config.features["image"] is None
    assert Recommender.from_config(tmp_path / "c.yaml").config.dim == 16


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_is_yaml_of_the_same_value(value):
    assert parsed(json.dumps(value, ensure_ascii=False)) == value


NUMBERS = st.from_regex(r"[-+]?[0-9]{0,3}\.?[0-9]{0,2}[eE][-+]?[0-9]{1,2}|0[ox]?[0-9]{1,3}", fullmatch=True)
"""Texts that some readers of YAML take for numbers."""
REFUSED = re.compile("(.*) (is a number in YAML 1.2, and a text in YAML 1.1|begins with a zero)\\.")


def texts_in(value):
    """Return all texts of a value, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts_in(part)]
    return [text for part in value for text in texts_in(part)] if isinstance(value, list) else [value]


@given(VALUES | NUMBERS)
@example("0E0")
@example({"12E4": ["0o7", "1.5e3", "1e-3", "08"]})
def test_data_that_others_write_as_yaml_is_read_back_or_its_texts_are_refused(value):
    text = yaml.safe_dump(value, allow_unicode=True)
    if "&id" in text:
        return
    try:
        assert parsed(text, data=True) == value
    except ConfigError as error:
        refused = [REFUSED.fullmatch(fault.what) for fault in error.faults if "is no text" not in fault.what]
        assert refused and all(one and one[1] in texts_in(value) for one in refused)


def test_the_hint_on_a_number_that_is_a_text_elsewhere_is_read():
    for text, number in [("1e5", "100000.0"), ("0o17", "15"), ("-2E-7", "-2.0e-07"), (".5e3", "500.0")]:
        with pytest.raises(ConfigError) as error:
            parsed(f"a: {text}", data=True)
        (fault,) = error.value.faults
        assert f"write the number as {number}." in fault.hint
        assert parsed(f"a: {number}", data=True) == parsed(f"a: {text}") == yaml.safe_load(f"a: {number}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2024-05-01", "2024-05-01"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("1e-3", 0.001),
        ("-.5", -0.5),
        ("0x1F", 31),
        ("0o17", 15),
        ("~", None),
        ("TRUE", True),
        ("'true'", "true"),
        ('"5"', "5"),
        ("|\n  two\n  lines", "two\nlines"),
        ("", None),
    ],
)
def test_scalars_have_the_types_of_the_core_schema(text, value):
    assert parsed(text) == value and type(parsed(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("dim: 3\nname: x\ndim: 4\n", "c.yaml:3", "'dim' occurs more than once: it is in line 1, too"),
        ("training:\n  epochs: 1\n  epochs: 2", "c.yaml:3", "'epochs' occurs more than once"),
        ("dim: [1, 2", "c.yaml:1:11", "not valid YAML"),
        ("a:\n\t- b", "c.yaml:2:1", "Indent by spaces"),
        ("a: &x [1]\nb: *x", "c.yaml:1", "used again by an alias"),
        ("a: !!python/object:os.system ls", "c.yaml:1", "the tag"),
        ("a: !!binary aGk=", "c.yaml:1", "the tag"),
        ("seed: 010", "c.yaml:1", "begins with a zero"),
        ("a: .nan", "c.yaml:1", "not finite"),
        ("a: -.inf", "c.yaml:1", "not finite"),
        ("1: x", "c.yaml:1", "the key 1 is no text"),
        ("? [a]\n: x", "c.yaml:1", "is no text"),
        ("a: 1\n---\nb: 2", "c.yaml:2:1", "another document"),
        ("a: " + "9" * 5000, "c.yaml:1", "thousands of digits"),
        ("[" * 5000, "c.yaml", "nested too deeply"),
        ("a: \x07", "c.yaml", "not valid YAML"),
    ],
)
def test_what_has_no_single_meaning_is_a_fault_with_its_line(text, place, message):
    with pytest.raises(ConfigError) as error:
        parsed(text)
    assert str(error.value).splitlines()[1].strip().startswith(f"{place}: ") and message in str(error.value)


def test_all_faults_are_reported_together_and_a_bomb_of_aliases_does_not_grow():
    with pytest.raises(ConfigError, match="4 faults"):
        parsed("dim: 010\nname: .inf\ndim: 3\n2: 3\n")
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    with pytest.raises(ConfigError, match="alias"):
        parsed(bomb)


def test_unknown_keys_and_other_forms_have_the_usual_errors(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text("dmi: 3\n")
    with pytest.raises(ConfigError, match="Did you mean 'dim'"):
        load_config(path)
    for text in ("- a\n", "", "just text"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="a config is an object of keys"):
            load_config(path)


def document(tmp_path):
    data = small_dataset(users=20, items=15)
    write_json(data, tmp_path / "data.json")
    return json.loads((tmp_path / "data.json").read_text())


def test_data_and_requests_can_be_yaml(tmp_path):
    found = document(tmp_path)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(found))
    (tmp_path / "data.yaml.gz").write_bytes(gzip.compress(yaml.safe_dump(found).encode()))
    wanted = Dataset.read(tmp_path / "data.json")
    for name in ("data.yaml", "data.yaml.gz"):
        read = Dataset.read(tmp_path / name)
        assert read.users.equals(wanted.users) and read.interactions.equals(wanted.interactions)
    recommender = Recommender.from_config(small_config(training={"epochs": 1})).fit(wanted, progress=False)
    (tmp_path / "request.yaml").write_text("user_data:\n  - {user_id: new, categorical: {job: nurse}}\n")
    new = {"user_data": [{"user_id": "new", "categorical": {"job": "nurse"}}]}
    assert recommender.recommend(tmp_path / "request.yaml", 3).equals(recommender.recommend(new, 3))
    (tmp_path / "bad.yaml").write_text("user_data:\n  - user_id: 1\n    user_id: 2\n")
    with pytest.raises(DataError, match=r"bad.yaml:3: the key 'user_id' occurs more than once"):
        Dataset.read(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("item_data:\n  - {item_id: 12E4}\n")
    with pytest.raises(DataError, match=r"bad.yaml:2: 12E4 is a number in YAML 1.2, and a text in YAML 1.1"):
        Dataset.read(tmp_path / "bad.yaml")


def test_commands_take_yaml_by_path_and_by_name(tmp_path, monkeypatch):
    found = document(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/shop.yaml").write_text(CONFIG)
    Path("data.yml").write_text(yaml.safe_dump(found))
    code, out, _ = call("train", "--data", "data.yml", "--config", "shop", "--output", "models")
    assert code == 0 and Path("models/shop/model").is_dir(), out
    Path("rules.yaml").write_text("item.continuous.price: {lt: 50}\n")
    Path("new.yaml").write_text("user_data:\n  - {user_id: u001}\n")
    arguments = ["--model_path", "models/shop", "--data", "new.yaml", "--filters", "rules.yaml", "--json"]
    code, out, _ = call("recommend", *arguments)
    assert code == 0 and "u001" in out
    Path("bad.yaml").write_text("dim: 3\ndim: 4\n")
    code, _, message = call("validate", "data.yml", "--config", "bad.yaml")
    assert code == 2 and "bad.yaml:2" in message
