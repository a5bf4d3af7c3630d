"""How a command loads the model that its options name, and reads the ids that they give."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anyrec.cli.datasets import read_dataset
from anyrec.cli.terminal import log
from anyrec.core.errors import ConfigError, Fault, InputError
from anyrec.core.hub_address import is_on_hub
from anyrec.core.runtime import no_collection

if TYPE_CHECKING:
    import pyarrow as pa

    from anyrec.core.config import ClusterConfig, Config
    from anyrec.data.dataset import Dataset
    from anyrec.data.ids import Side
    from anyrec.recommender import Recommender

MODELS = Path("models")
"""Folder in which runs are found by name."""


def model_place(model_path: Path | None, model_dir: Path | None, model_name: str | None) -> Path:
    """Return the path of the model; for hf://OWNER/NAME, the folder that it is downloaded to.

    Raises:
        InputError: If none of the three options is given.
        ModelError: If a model of the Hub cannot be downloaded.
    """
    if model_path is not None and is_on_hub(model_path):
        from anyrec.storage.hub import model_folder

        return model_folder(model_path)
    if model_path is not None:
        return model_path
    if model_dir is None and model_name is None:
        what = "no model was named."
        raise InputError(Fault("--model_path", what, "Give --model_path, or --model_name with --model_dir.", "option"))
    folder = model_dir or MODELS
    return folder / model_name if model_name else folder


def load(
    model_path: Path | None,
    model_dir: Path | None,
    model_name: str | None,
    config: Path | None,
    plugins: list[Path],
    trust: bool,
    image_root: Path | None = None,
    overrides: Sequence[str] = (),
    data: Sequence[Path] = (),
    with_data: bool = False,
    cluster: ClusterConfig | None = None,
) -> Recommender:
    """Load the model that the options name, change what can change after training, and log its notes.

    Args:
        model_path: Folder of the run or of the model, or a file in one of them.
        model_dir: Folder of run folders.
        model_name: Name of the run in `model_dir`.
        config: A config file with other values for keys that are read after training; None for the model's own config.
        plugins: Folders of plugin files.
        trust: Allow what the model names outside its folder.
        image_root: Folder for relative image paths.
        overrides: Values of `--set`, which take precedence over `config`.
        data: The training data; none for the tables that the config names.
        with_data: Whether the model needs its training data.
        cluster: The section `cluster` of a command that reads it (`read_cluster`); None for all other commands.

    Raises:
        InputError: If an override names a cluster, and the command runs in one process.
        ConfigError: With every key that cannot change after training.
    """
    from anyrec.core.load_config import read_config

    model_path = model_place(model_path, model_dir, model_name)
    if cluster is None:
        refuse_cluster(overrides)
    changes, notes = read_config(config, overrides)
    plugins = [*plugins, *map(Path, changes.plugins)]
    started = time.perf_counter()
    with no_collection():
        from anyrec.recommender import Recommender  # loads torch

        recommender = Recommender.load(model_path, trust_plugins=trust, plugins=plugins, image_root=image_root)
    if with_data:
        recommender = recommender.with_data(_training_data(data, recommender.config, changes))
    if changes.model_fields_set:
        recommender = recommender.with_config(changes, progress=False)
    for note in notes:
        log.info(note)
    log.debug("loaded %s in %.1f s", model_path, time.perf_counter() - started)
    for note in recommender.notes:
        log.info(note)
    return recommender


def read_cluster(config: Path | None, overrides: Sequence[str]) -> ClusterConfig:
    """Return the section `cluster` of a command's --config and --set.

    Raises:
        ConfigError: With all faults of the config, and keys that `type: none` does not read.
    """
    from anyrec.core.effects import chosen_by_user, idle_cluster
    from anyrec.core.load_config import read_config

    changes, _ = read_config(config, overrides)
    idle = chosen_by_user(idle_cluster(changes), changes)
    if idle:
        raise ConfigError([one.fault for one in idle])
    return changes.cluster


def refuse_cluster(overrides: Sequence[str]) -> None:
    """Raise InputError if `--set` names a cluster: for a command that runs in one process."""
    named = [one for one in overrides if one.split("=")[0].split(".")[0] == "cluster"]
    if named:
        what = "this command runs in one process."
        hint = "Leave it out. Clusters run `anyrec train`, `anyrec tune`, `anyrec recommend --all` and `anyrec embed`."
        raise InputError([Fault(f"--set {one}", what, hint, "option") for one in named])


def _training_data(data: Sequence[Path], config: Config, changes: Config) -> Dataset | None:
    """Read the data that a command names, or the tables that its config names; None for those of the model itself."""
    if not data and changes.data.sources is None:
        return None
    options = config.data.model_copy(update={"sources": changes.data.sources})
    return read_dataset(data, config.model_copy(update={"data": options}))


def id_array(recommender: Recommender, side: Side, given: Sequence[str], option: str) -> pa.Array:
    """Return ids of the command line with the type of the model's ids.

    Raises:
        InputError: If one of them is not of that type.
    """
    import pyarrow as pa

    kind = recommender.dataset.ids(side).type
    try:
        return pa.array(given, pa.string()).cast(kind)
    except pa.ArrowInvalid:
        fix = "Give an id of this type."
        raise InputError(Fault(option, f"the ids of this model are {kind}.", fix, "bad id")) from None
