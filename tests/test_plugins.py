"""Drop-in files, installed packages and their clashes."""

import json
import math
import struct
import subprocess
import sys
import wave
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pytest
from small import small_config, small_dataset

from anyrec.core.contracts import Context
from anyrec.core.discovery import discover, read_folder
from anyrec.core.errors import ConfigError, ModelError
from anyrec.core.load_config import load_config
from anyrec.core.schema import config_schema
from anyrec.recommender import Recommender
from anyrec.testing import check_encoder

ROOT = Path(__file__).parent.parent
LENGTH = '''
import pyarrow.compute as pc
import torch
from anyrec import Encoder

class Length(Encoder):
    """Encodes a text by how long it is."""
    type = "length"
    group = "text"

    def prepare(self, column):
        return torch.log1p(torch.tensor(pc.fill_null(pc.utf8_length(column), 0).to_pylist()).float()).unsqueeze(1)
'''


def tone(path, pitch, seconds=0.3, width=2, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        values = [math.sin(2 * math.pi * pitch * n / rate) for n in range(int(seconds * rate))]
        if width == 1:
            file.writeframes(bytes(int(127.5 + 127 * v) for v in values))
        else:
            top = 2 ** (8 * width - 1) - 1
            file.writeframes(b"".join(struct.pack("<q", int(v * top))[:width] for v in values))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for number, pitch in enumerate((200, 400, 900, 2000)):
        tone(folder / f"{number}.wav", pitch)
    return folder


def test_a_drop_in_encoder_is_listed_trained_saved_and_loaded(tmp_path):
    (tmp_path / "length.py").write_text(LENGTH)
    registry = discover([tmp_path])
    assert "length" in registry.names("encoder")
    assert "encoder:length" in config_schema(registry)["$defs"]
    check_encoder(registry.get("encoder", "length"))
    with pytest.raises(ConfigError, match="Did you mean 'length'"):
        registry.get("encoder", "lenght")
    config = small_config(features={"text": {"type": "length"}}, plugins=[str(tmp_path)])
    recommender = Recommender.from_config(config).fit(small_dataset(), progress=False)
    kinds = dict(zip(recommender.model.scorer.user.features, recommender.model.scorer.user.encoders, strict=True))
    assert kinds["text.bio"].type == "length"
    place = recommender.save(tmp_path / "model")
    with pytest.raises(ModelError, match=r"no encoder 'length'.*\n.*were left out: .*--plugins"):
        Recommender.load(place)
    for options in ({"plugins": [tmp_path]}, {"trust_plugins": True}):
        assert Recommender.load(place, **options).recommend(None, 3).equals(recommender.recommend(None, 3))


def test_the_audio_plugin_encodes_audio_features(sounds):
    registry = discover([ROOT / "plugins"])
    column = pa.array(["0.wav", "1.wav", None, "2.wav", "gone.wav", "3.wav", "0.wav", "1.wav"])
    check_encoder(registry.get("encoder", "audio"), column, {"bands": 8}, Context(root=sounds))
    data = small_dataset()
    data.root = sounds
    clips = [
        f"{['nurse', 'pilot', 'baker', 'clerk'].index(tags[0])}.wav"
        for tags in data.items["categorical.tags"].to_pylist()
    ]
    data.items = data.items.append_column("audio.clip", pa.array(clips))
    recommender = Recommender.from_config(small_config(), plugins=[ROOT / "plugins"]).fit(data, progress=False)
    assert "audio.clip" in recommender.model.scorer.item.features


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width_are_read_correctly(tmp_path, width):
    import numpy as np

    registry = discover([ROOT / "plugins"])
    module = sys.modules[registry.get("encoder", "audio").__module__]
    tone(tmp_path / "a.wav", 440, width=width)
    samples, rate = module.read_wav(tmp_path / "a.wav", 10)
    assert rate == 8000 and np.abs(samples - np.sin(2 * np.pi * 440 * np.arange(len(samples)) / 8000)).max() < 0.02


def test_a_note_names_a_feature_group_that_no_encoder_reads():
    data = small_dataset()
    data.items = data.items.append_column("video.trailer", pa.array(["a.mp4"] * len(data.items)))
    recommender = Recommender.from_config(small_config()).fit(data, progress=False)
    assert any("video.trailer" in note and "not used" in note for note in recommender.notes)


def test_two_components_of_one_name_are_an_error_that_names_both(tmp_path):
    (tmp_path / "mine.py").write_text(LENGTH.replace('"length"', '"hashed"'))
    with pytest.raises(ConfigError) as error:
        discover([tmp_path])
    assert "mine.py" in str(error.value) and "encoders/text.py" in str(error.value)


@pytest.fixture
def broken(tmp_path):
    """A folder with a plugin that works and one that is not valid Python."""
    (tmp_path / "length.py").write_text(LENGTH)
    (tmp_path / "broken.py").write_text("class Half(Encoder:\n")
    return tmp_path


def test_a_broken_drop_in_is_a_warning_and_the_other_components_can_be_used(broken, caplog):
    registry = discover([broken])
    assert "length" in registry.names("encoder")
    assert [fault.where for fault in registry.broken] == [f"{broken}/broken.py:1"]
    assert [record.getMessage() for record in caplog.records] == [str(registry.broken[0])]
    discover([broken])
    assert len(caplog.records) == 1, "the warning is given once"
    config = small_config(features={"text": {"type": "length"}}, plugins=[str(broken)])
    Recommender.from_config(config).fit(small_dataset(), progress=False)


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"features": {"text": {"type": "half"}}}, "/features/text/type"),
        ({"fusion": {"type": "half"}}, "/fusion/type"),
        ({"model": {"type": "half"}}, "/model/type"),
        ({"evaluation": {"baselines": ["half"]}}, "/evaluation/baselines/0"),
    ],
)
def test_an_error_about_an_unknown_component_shows_the_broken_file(broken, config, where):
    with pytest.raises(ConfigError) as error:
        load_config({**config, "plugins": [str(broken)]})
    assert [fault.where for fault in error.value.faults] == [where, f"{broken}/broken.py:1"]
    assert "this plugin is not valid Python" in str(error.value)


def test_commands_report_a_broken_drop_in_and_fail_only_if_they_need_it(broken):
    def run(*arguments):
        program = "import sys; from anyrec.cli.app import main; sys.argv = ['anyrec', *sys.argv[1:]]; main()"
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
        )

    listed = run("plugins", "--plugins", broken)
    assert listed.returncode == 2 and listed.stderr.count("this plugin is not valid Python") == 1
    assert "length" in listed.stdout and "hashed" in listed.stdout
    schema = run("schema", "--plugins", broken)
    assert schema.returncode == 0 and "encoder:length" in json.loads(schema.stdout)["$defs"]
    assert schema.stderr.count("this plugin is not valid Python") == 1
    assert run("--help").stderr == ""


def test_a_drop_in_that_cannot_be_imported_fails_only_if_it_is_used(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n" + LENGTH)
    registry = discover([tmp_path])
    assert "length" in registry.names("encoder") and not registry.broken
    with pytest.raises(ConfigError, match="nothing_of_this_name"):
        registry.get("encoder", "length")


def test_a_drop_in_that_imports_a_built_in_package_by_its_bare_name_is_refused(tmp_path):
    (tmp_path / "bare.py").write_text(
        LENGTH.replace("from anyrec import Encoder", "from anyrec import Encoder\nfrom encoders.text import Hashed")
    )
    registry = discover([tmp_path], warn=False)
    assert "import 'anyrec.encoders'" in str(registry.broken[0])
    with pytest.raises(ConfigError, match=r"import 'anyrec.encoders'"):
        registry.get("encoder", "length")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("from anyrec import hookimpl\n@hookimpl\ndef anyrec_encoder(): return []", "anyrec_encoder"),
        ("from anyrec import hookimpl\n@hookimpl\ndef anyrec_rules(): return [int]", "has no attribute 'type'"),
    ],
)
def test_an_installed_package_that_fails_is_reported_by_name(tmp_path, monkeypatch, module, reason):
    (tmp_path / "faulty_plugin.py").write_text(module)
    point = metadata.EntryPoint("faulty", "faulty_plugin", "anyrec")
    monkeypatch.setattr("anyrec.core.hooks.entry_points", lambda group: [point])
    monkeypatch.syspath_prepend(tmp_path)
    registry = discover(warn=False)
    sys.modules.pop("faulty_plugin", None)
    (fault,) = registry.broken
    assert "faulty_plugin" in str(fault) and reason in fault.what


def test_a_preferred_encoder_is_the_default_of_its_group(tmp_path):
    assert discover().encoder_for("text") == "hashed"
    (tmp_path / "length.py").write_text(
        LENGTH.replace("group = ", "preferred = True\n    group = ").replace("text", "note")
    )
    (tmp_path / "other.py").write_text(LENGTH.replace('"length"', '"note"').replace('"text"', '"note"'))
    assert discover([tmp_path]).encoder_for("note") == "length"


def test_plugins_can_be_switched_off(tmp_path, monkeypatch):
    (tmp_path / "length.py").write_text(LENGTH)
    monkeypatch.setenv("ANYREC_NO_PLUGINS", "1")
    assert "length" not in discover([tmp_path]).names("encoder")


def test_classes_without_a_type_and_private_classes_are_not_components(tmp_path):
    (tmp_path / "some.py").write_text(
        LENGTH
        + "\nclass Base(Encoder):\n    pass\n"
        + "\nclass _Hidden(Length):\n    type = 'hidden'\n"
        + "\nclass Longer(Length):\n    type = 'longer'\n"
    )
    assert [(p.type, p.group) for p in read_folder(tmp_path).plugins] == [("length", "text"), ("longer", "text")]


def test_the_same_class_shipped_as_a_package_is_found(tmp_path):
    source = tmp_path / "source"
    (source / "anyrec_length").mkdir(parents=True)
    hook = "\nfrom anyrec import hookimpl\n\n@hookimpl\ndef anyrec_encoders():\n    return [Length]\n"
    (source / "anyrec_length" / "__init__.py").write_text(LENGTH + hook)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "anyrec-length"\nversion = "1"\n[project.entry-points.anyrec]\nlength = "anyrec_length"\n'
    )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        tmp_path / "site",
        source,
    ]
    subprocess.run(list(map(str, pip)), check=True, capture_output=True)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from anyrec.core.discovery import discover\n"
        "print([(p.type, p.origin) for p in discover().plugins('encoder')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "site")], capture_output=True, text=True, cwd=tmp_path
    )
    assert "('length', 'package anyrec_length')" in done.stdout, done.stderr


def test_the_list_of_plugins_is_stable():
    first, second = (json.dumps([(p.kind, p.type) for p in discover().plugins()]) for _ in range(2))
    assert first == second
