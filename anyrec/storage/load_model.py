"""A model directory back as a recommender. The directory is data from anybody: nothing in it is run, and each fault is a ModelError.

docs/security.md has what loading does and does not do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from anyrec.core.config import Config
from anyrec.core.contracts import Context, Encoder
from anyrec.core.discovery import Registry, discover
from anyrec.core.errors import Fault, ModelError
from anyrec.core.manifest import Manifest, read_object, read_version
from anyrec.core.outside import ALLOW, Outside
from anyrec.core.param_faults import faults_of
from anyrec.core.saved_files import (
    AGAIN,
    bounded_by,
    check_pairs,
    check_parts,
    check_records,
    damaged,
    read_table,
    read_tensors,
    require_finite,
)
from anyrec.core.trust import Named, note_of, without_outside
from anyrec.data.dataset import Dataset
from anyrec.data.histories import COLUMN
from anyrec.data.list_columns import flat
from anyrec.evaluation.ranking import Pairs
from anyrec.model.fitted import TOKENS, VECTORS
from anyrec.model.towers import SIDES, Model, make_head, make_interaction, make_tower
from anyrec.storage.model_directory import ELSEWHERE, FORMAT, HISTORY, STATE, find_model, id_of, unpack

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

KINDS: dict[str, Any] = {
    "format": int,
    "name": str,
    "data": str,
    "root": str,
    "roles": dict,
    "counts": dict,
    "metrics": dict,
    "modules": dict,
    "versions": dict,
}
ROLES = ("numbers", "timestamps", "items")


def load_model(
    path: Path, trust_plugins: bool, plugins: Sequence[str | Path], image_root: str | Path | None = None
) -> Recommender:
    """Read one whole version of a model directory, even if a writer replaces it meanwhile. Arguments as of `Recommender.load`."""

    def read(manifest: Manifest) -> Recommender:
        return _read(manifest, trust_plugins, plugins, image_root)

    return read_version(lambda: find_model(path), AGAIN, read)


def _read(
    manifest: Manifest, trusted: bool, plugins: Sequence[str | Path], image_root: str | Path | None
) -> Recommender:
    directory = manifest.folder
    found = manifest.document.get("format")
    if found != FORMAT:
        what = f"its format is {found!r}; this version reads {FORMAT}."
        raise ModelError(Fault(str(directory), what, "Train again.", "format"))
    document = manifest.check(KINDS, ELSEWHERE)
    _check_details(document, directory)
    config = _read_config(directory / "config.json")
    state = directory / STATE
    parts = read_object(state, AGAIN) if state.is_file() else {}
    named: list[Named] = []
    if not trusted:
        config, named = _restricted(config, parts, document, manifest, plugins)
    registry = discover([*config.plugins, *plugins], drop_in=trusted or not _is_within_run(manifest.place))
    try:
        with damaged(directory):
            _add_modules(registry, document["modules"])
            return _restore(manifest, config, registry, trusted, named, image_root)
    except ModelError as error:
        folders = [one.value for one in named if one.where == "/plugins"]
        if not folders or "unknown plugin" not in error.counts:
            raise
        what = f"the folders of plugins that the model names were left out: {', '.join(folders)}."
        hint = f"Name them with plugins=[...] (--plugins). {ALLOW}"
        raise ModelError([*error.faults, Fault(str(directory), what, hint, "untrusted")]) from None


def _read_config(path: Path) -> Config:
    """The model's config. Raises ModelError with every bad key."""
    with damaged(path):
        document = read_object(path, AGAIN)
        try:
            return Config.model_validate(document)
        except ValidationError as error:
            raise ModelError(faults_of(error, Config, f"{path}#")) from None


def _restricted(
    config: Config, parts: dict[str, Any], document: dict[str, Any], manifest: Manifest, plugins: Iterable[str | Path]
) -> tuple[Config, list[Named]]:
    """The config of a model that is not trusted, and what was left out of it. Raises ModelError with everything that is refused."""
    faults, directory = [], manifest.folder
    if document["modules"]:
        names = ", ".join(f"'{name}'" for name in document["modules"])
        what = f"the encoder {names} is a module of the user's own, named by import path, which loading would run."
        faults.append(Fault(str(directory), what, ALLOW, "untrusted"))
    callers = ["plugins", *plugins]
    registry = discover(plugins, drop_in=not _is_within_run(manifest.place))
    config, refused, left_out = without_outside(config, registry, parts, callers)
    faults += [Fault(f"{directory}/config.json#{one.where}", one.what, one.hint, one.kind) for one in refused]
    if faults:
        raise ModelError(faults)
    return config, left_out


def _restore(
    manifest: Manifest,
    config: Config,
    registry: Registry,
    trusted: bool,
    named: Sequence[Named],
    image_root: str | Path | None,
) -> Recommender:
    from anyrec.pipeline.fit import FOLDER as PIPELINE
    from anyrec.pipeline.fit import load_pipeline
    from anyrec.recommender import make_recommender
    from anyrec.retrieval.model_index import load_catalogue

    directory, document = manifest.folder, manifest.document
    tables = {side: read_table(directory / f"{side}s.arrow") for side in SIDES}
    training = config.training.model_copy(update={"device": "auto"})
    recommender = make_recommender(config.model_copy(update={"training": training}), registry)
    own_root = not trusted and image_root is None
    if own_root and any(name.startswith(("image.", "audio.")) for side in tables for name in tables[side].column_names):
        named = [*named, Named("/root", document["root"], Outside("a folder", "leave out"))]
    recommender.notes += [note_of(named)] if named else []
    for side, table in tables.items():
        check_records(table, side, directory / f"{side}s.arrow")
    nothing = pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())})
    root = Path() if own_root else Path(image_root or document["root"])
    recommender.dataset = Dataset(tables["user"], tables["item"], nothing, root, document["roles"])
    recommender.context = Context(
        root=recommender.dataset.root,
        allow_urls=config.data.allow_urls,
        allow_outside_root=config.data.allow_outside_root,
        seed=config.seed,
        device=str(recommender.device),
        items=recommender.dataset.items,
        trusted=trusted,
        open_files=not own_root,
    )
    recommender.read_parts(directory)
    users, items = len(tables["user"]), len(tables["item"])
    if (directory / HISTORY).is_file():
        recommender.history, recommender.history_parts = _read_history(directory / HISTORY, users, items)
    recommender.metrics = document["metrics"]
    recommender.refitted = config.training.refit and "validation" in document["metrics"]
    recommender.fingerprint = document["data"]
    known = read_tensors(directory / "known.safetensors")
    recommender._known = {name: rows.to(recommender.device) for name, rows in known.items()}  # type: ignore[misc]
    pairs = read_table(directory / "seen.arrow")
    owners, seen = check_pairs(pairs, users, items, directory / "seen.arrow")
    if "parts" in pairs.column_names:
        with damaged(directory / "seen.arrow"):
            recommender.seen_parts = check_parts(pairs.column("parts").to_numpy(), len(seen))
    recommender.seen = Pairs(seen, np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=users))]))
    recommender.model.eval()
    recommender.check_restored(directory)
    recommender.pipeline = load_pipeline(recommender, directory / PIPELINE)
    recommender.model_id = id_of(document)
    if recommender.pipeline is not None:
        recommender.catalogue = load_catalogue(recommender, directory, manifest.place.parent)
    recommender.directory = manifest.place
    return recommender


def read_model(directory: Path, config: Config, registry: Registry, context: Context) -> Model:
    """The two-tower model of a directory: encoders from their state, layers of the config, weights. Raises ModelError."""
    parts, weights = read_object(directory / STATE, AGAIN), directory / "model.safetensors"
    with damaged(directory, "its parts do not fit each other"):
        with bounded_by(weights):
            model = _made(parts, directory, config, registry, context)
        with damaged(
            weights, "the weights do not fit the components installed here", "Use the versions in manifest.json."
        ):
            tensors = read_tensors(weights, finite=False)
            model.load_state_dict(tensors)
            require_finite({name: value.detach() for name, value in model.named_parameters()})
            for name, buffer in model.named_buffers():
                if buffer.is_floating_point() and bool(buffer.isnan().any()):
                    raise ValueError(f"'{name}' holds NaN")
    return model


def _made(parts: dict[str, Any], directory: Path, config: Config, registry: Registry, context: Context) -> Model:
    folder = (directory / STATE).parent
    towers = {}
    for side in SIDES:
        encoders = {}
        for name, saved in parts[side].items():
            params = registry.params("encoder", saved["type"], saved["params"], f"/features/{name}")
            encoder: Encoder = registry.get("encoder", saved["type"], f"/features/{name}")(
                params, config.encoder_dim or config.dim
            )
            encoder.context = context
            encoder.input_dim = saved["input_dim"]
            encoder.restore(unpack(saved["state"], folder))
            encoders[name] = encoder
        towers[side] = make_tower(config, registry, encoders, parts[f"{side}_together"], side)
    interaction = make_interaction(config, registry, towers["user"], towers["item"])
    heads = {}
    for name, component in sorted(config.heads.items()):
        head = make_head(config, registry, name, component, interaction.pair_dim)
        head.restore(unpack(parts["heads"][name], folder))
        head.build()
        heads[name] = head
    return Model(towers["user"], towers["item"], interaction, heads)


def check_vectors(recommender: Recommender, directory: Path) -> None:
    """Raises ModelError if the saved vectors do not fit the records and the layers, or a new record cannot be encoded."""
    known = recommender._known
    with damaged(directory / "known.safetensors", "these vectors do not fit the model"):
        unknown = set(known) - {*SIDES, *TOKENS.values(), VECTORS}
        missing = set(SIDES) - set(known)
        if unknown or missing:
            raise ValueError(f"found {sorted(known)}")
        for name, rows in known.items():
            side = "user" if name.startswith("user") else "item"
            wanted = len(recommender.dataset.table(side))
            if not rows.is_floating_point() or len(rows) != wanted:
                raise ValueError(
                    f"'{name}' is {rows.dtype} {tuple(rows.shape)}; {wanted} rows of numbers were expected"
                )
    with damaged(directory, "a new record cannot be encoded"):
        for side in SIDES:
            record = _empty_records(recommender.dataset.table(side), f"{side}_id")
            made = {side: recommender._represent(side, record)[1]}
            if TOKENS[side] in known:
                made[TOKENS[side]] = recommender._tokens(side, record)
            for name, rows in made.items():
                if rows.shape[1:] != known[name].shape[1:] or not bool(rows.isfinite().all()):
                    raise ValueError(
                        f"it has the shape {tuple(rows.shape[1:])}, '{name}' {tuple(known[name].shape[1:])}"
                    )


def _empty_records(table: pa.Table, key: str) -> pa.Table:
    """Two records with every feature missing: the least that an encoder must take."""
    columns = {name: pa.nulls(2, table.schema.field(name).type) for name in table.column_names}
    kind = table.schema.field(key).type
    return pa.table({**columns, key: pa.array([0, 1] if pa.types.is_integer(kind) else ["new-1", "new-2"], kind)})


def _read_history(path: Path, users: int, items: int) -> tuple[pa.Array, np.ndarray | None]:
    """(users,) the events of each user, and (events,) the part of the split of each, if saved. Raises ModelError."""
    with damaged(path, "this is not a column of histories"):
        table = read_table(path)
        history = table.column("events").combine_chunks()
        if history.type != COLUMN or len(history) != users:
            raise ValueError(f"{users} rows of {COLUMN} were expected")
        found = history.flatten().field("item").to_numpy(zero_copy_only=False)
        if len(found) and not 0 <= found.min() <= found.max() < items:  # a null is NaN, which compares as False
            raise ValueError(f"an item is not within 0 and {items - 1}")
        if "parts" not in table.column_names:
            return history, None
        parts = table.column("parts").combine_chunks()
        lengths, wanted = (pc.fill_null(pc.list_value_length(one), 0) for one in (parts, history))
        if not lengths.equals(wanted) or parts.flatten().null_count:
            raise ValueError("the parts are not those of the events")
        return history, check_parts(flat(parts)[0].to_numpy(), len(found))


def _check_details(document: dict[str, Any], directory: Path) -> None:
    """Raises ModelError for values within the manifest that are not of their kind."""
    wrong = [f"roles/{name}" for name, role in document["roles"].items() if role not in ROLES]
    wrong += [
        f"metrics/{part}"
        for part, values in document["metrics"].items()
        if not isinstance(values, dict) or not all(isinstance(one, (int, float)) for one in values.values())
    ]
    wrong += [] if "\0" not in document["root"] else ["root"]
    if wrong:
        raise ModelError(
            [Fault(f"{directory}/manifest.json#/{one}", "this is of another type.", AGAIN, "damaged") for one in wrong]
        )


def _add_modules(registry: Registry, modules: dict[str, Any]) -> None:
    from anyrec.model.custom_modules import encoder_of, rebuild

    for name, description in modules.items():
        registry.add_class("encoder", encoder_of(name, rebuild(description)), f"add_encoder('{name}')")


def _is_within_run(directory: Path) -> bool:
    """Whether the `plugins` folder of the current directory came with the model: within it, or in its run's folder."""
    return Path("plugins").resolve().is_relative_to(directory.parent)
