"""Translation of configs of the project "two-tower augmented with adaptive mimic mechanism" to the current format.

Its sections `data`, `model`, `training` and `evaluation` are called like ours and have other keys; keys of both formats
can stand in one section.
"""

from __future__ import annotations

from collections.abc import Iterator

from anyrec.core.config import Config, DataConfig, EvaluationConfig, TrainingConfig
from anyrec.core.errors import ConfigError, did_you_mean
from anyrec.core.translation import Translation
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import show

PLACES = {
    "experiment.name": "name",
    "experiment.seed": "seed",
    "data.books_limit": "data.max_items",
    "data.interactions_limit": "data.max_interactions",
    "data.feature_params.category_top_k": "features.categorical.max_categories",
    "model.similarity": "interaction.type",
    "model.device": "training.device",
    "training.num_epochs": "training.epochs",
    "training.learning_rate": "training.optimizer.learning_rate",
    "training.weight_decay": "training.optimizer.weight_decay",
    "training.gradient_clip_norm": "training.gradient_clip",
    "evaluation.metrics_k": "evaluation.k",
    "recommendations.sample_users": "evaluation.diagnostics.examples",
    "diagnostics.user_sample_size": "evaluation.diagnostics.embeddings",
    "diagnostics.neighbor_k": "evaluation.diagnostics.neighbours",
}
GIVEN = "give the data by --data"
IN_RUN = "the run's folder has it"
LEFT_OUT = {
    "experiment.benchmark_report": "`anyrec compare` compares runs",
    "experiment.grid": "train once for each combination, with --set",
    "data.root": GIVEN,
    "data.books_file": GIVEN,
    "data.users_file": GIVEN,
    "data.cache_dir": "vectors of texts and images are cached in ANYREC_CACHE",
    "data.train_fraction": "it is what the validation and the test part leave",
    "data.test_fraction": "the test part is each user's latest interaction",
    "data.feature_params.numeric_columns": "all numbers in the data are read",
    "data.feature_params.author_top_k": "set features.categorical.fields.author.max_categories",
    "training.momentum": "",
    "training.betas": "",
    "training.loss_weights.category_alignment": "",
    "training.early_stopping.mode": "all metrics are better if higher",
    "training.early_stopping.min_delta": "any improvement counts",
    **dict.fromkeys(
        (f"training.checkpointing.{key}" for key in ("enabled", "dir", "save_best_only", "keep_last")),
        "the best and the last state are always kept",
    ),
    "training.checkpointing.filename_template": IN_RUN,
    "evaluation.faiss.search_k_multiplier": "filters always leave k items",
    "evaluation.faiss.batch_size": "",
    "evaluation.faiss.index_path": IN_RUN,
    "evaluation.faiss.embedding_path": IN_RUN,
    "model.adaptive_mimic.init_std": "",
    "recommendations.top_k": "",
    "diagnostics.item_sample_size": "evaluation.diagnostics.embeddings is for users and items",
    "diagnostics.feature_corr_top_k": "all significant correlations are reported",
    **dict.fromkeys(
        (f"diagnostics.{key}" for key in ("report_path", "loss_plot_path", "embedding_summary_path")), IN_RUN
    ),
    "logging.level": "the options -v and -q choose it",
}
"""Keys without a counterpart, and why."""
TOWER = (
    "type",
    "fusion",
    "output_dim",
    "adaptive_mimic.hidden_dim",
    *(f"feature_encoder.{key}" for key in ("type", "hidden_dims", "activation", "output_dim", "dropout")),
    *(
        f"{start}{key}"
        for start in ("", "id_embedding.")
        for key in ("params.embedding_dim", "params.sparse", "params.max_norm", "params.padding_idx")
    ),
    *(f"{start}init.{key}" for start in ("", "id_embedding.") for key in ("type", "std", "bound")),
)
"""Keys of `model.user_encoder` and `model.item_encoder`."""
TOWERS = {"user": "model.user_encoder", "item": "model.item_encoder"}
OTHERS = (
    "data.feature_params.user_aggregation",
    "training.optimizer",
    "training.negatives_per_positive",
    "training.loss_weights.mimic_user",
    "training.loss_weights.mimic_item",
    "training.early_stopping.enabled",
    "training.early_stopping.metric",
    "training.early_stopping.patience",
    "evaluation.holdout",
    "evaluation.faiss.enabled",
    "model.adaptive_mimic.enabled",
    *(f"{start}.{key}" for start in TOWERS.values() for key in TOWER),
)
"""Keys that are translated together with others."""
KNOWN = {*PLACES, *LEFT_OUT, *OTHERS}
SECTIONS = {".".join(parts[:n]) for parts in (key.split(".") for key in KNOWN) for n in range(1, len(parts))}
OURS = {"data": DataConfig, "training": TrainingConfig, "evaluation": EvaluationConfig}
"""Sections that both formats have."""
MARKS = (
    "experiment.",
    "recommendations.",
    "diagnostics.",
    "data.books_",
    "data.users_file",
    "data.feature_params.",
    *(f"{start}." for start in TOWERS.values()),
    "model.adaptive_mimic.",
    "training.negatives_per_positive",
    "training.loss_weights.",
    "evaluation.metrics_k",
    "evaluation.holdout",
)
"""Beginnings of the keys by which a config of the project is known. Other keys, such as `training.num_epochs`, are
mistakes in a config of ours."""
FUSIONS = {"gated": "adaptive_mimic", "adaptive_mimic": "adaptive_mimic", "sum": "sum", "concat": "concat"}
CHOICES = {
    "type": ("tower", "embedding"),
    "feature_encoder.type": ("identity", "linear", "mlp"),
    "init.type": ("normal", "uniform", "xavier_normal", "xavier_uniform"),
    "id_embedding.init.type": ("normal", "uniform", "xavier_normal", "xavier_uniform"),
}
"""Values that keys of a tower can have, besides the fusion."""
SWITCHES = (".enabled", ".sparse")
"""Ends of the keys that are true or false."""
GROUPS = ("text", "categorical", "continuous", "image", "temporal")
DIM = 64
"""The project's default `embedding_dim`."""


def is_of_the_project(document: JsonObject) -> bool:
    """Return True if a config has keys that only this project has."""
    return any(key.startswith(MARKS) for key, _ in _leaves(document) if key in KNOWN)


def translate(document: JsonObject) -> Translation:
    """Translate a config of the project.

    Args:
        document: The config as parsed JSON. Keys of the current format stay as they are.

    Raises:
        ConfigError: With a fault for each unknown key and each value that cannot be translated.
    """
    made, values = Translation(), dict(_leaves(document))
    for key, value in values.items():
        section, _, name = key.partition(".")
        if key == "training.optimizer" and not isinstance(value, dict):
            made.put(key, "training.optimizer.type", str(value).lower())
        elif key in PLACES:
            made.put(key, PLACES[key], value)
        elif key in LEFT_OUT:
            made.leave_out(key, LEFT_OUT[key])
        elif key in SECTIONS and value is not None:
            made.fault(key, f"expected an object; found {show(value)}.", kind="bad value")
        elif key not in KNOWN and key not in SECTIONS:
            own = OURS[section].model_fields if section in OURS else Config.model_fields
            if (name if section in OURS else section) in own:
                made.keep(key, value)
            else:
                near = {one for one in KNOWN if one.startswith(f"{section}.")} or {one.split(".")[0] for one in KNOWN}
                made.fault(key, "unknown key.", did_you_mean(key, near), "unknown key")
    _check_choices(values, made)
    _towers(values, made)
    _training(values, made)
    if made.faults:
        raise ConfigError(made.faults)
    return made


def _leaves(document: JsonObject, start: str = "") -> Iterator[tuple[str, Json]]:
    """Yield each key of a config, as a dotted path, with its value."""
    for name, value in document.items():
        key = f"{start}{name}"
        if isinstance(value, dict) and key in SECTIONS:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _check_choices(values: JsonObject, made: Translation) -> None:
    """Add a fault for each value of a fixed set that is none of it, and for each switch that is not true or false."""
    for key, value in values.items():
        if key in KNOWN and key.endswith(SWITCHES) and not isinstance(value, bool):
            made.fault(key, f"expected true or false; found {show(value)}.", kind="bad value")
    for start in TOWERS.values():
        for name, accepted in CHOICES.items():
            value = values.get(f"{start}.{name}", accepted[0])
            if value not in accepted:
                hint = did_you_mean(str(value), accepted)
                made.fault(f"{start}.{name}", f"unknown value {show(value)}.", hint, "bad value")


def _towers(values: JsonObject, made: Translation) -> None:
    """Translate the towers and the size of their vectors."""
    dims: dict[str, tuple[str, Json]] = {}
    for side, start in TOWERS.items():
        tower = {key.removeprefix(f"{start}."): value for key, value in values.items() if key.startswith(f"{start}.")}
        if not tower:
            continue
        ids = "" if tower.get("type") == "embedding" else "id_embedding."
        key = f"{ids}params.embedding_dim"
        dim = tower.get(key, DIM)
        dims[side] = (f"{start}.{key}", dim)
        if tower.get("fusion") == "concat" and tower.get("output_dim"):
            dims[side] = (f"{start}.output_dim", tower["output_dim"])
            if tower["output_dim"] != dim:
                made.put(f"{start}.{key}", "encoder_dim", dim)
        _identity(side, f"{start}.{ids}", {k.removeprefix(ids): v for k, v in tower.items()}, values, made)
        _fusion(side, start, tower, values, made)
        for other in ("output_dim", "feature_encoder.output_dim", "adaptive_mimic.hidden_dim"):
            if other in tower and f"{start}.{other}" != dims[side][0]:
                made.leave_out(f"{start}.{other}", "all vectors of a tower have the size `dim`")
    if len({str(dim) for _, dim in dims.values()}) > 1:
        (_, first), (key, second) = dims.values()
        what = f"the vectors of users have {show(first)} dimensions, those of items {show(second)}."
        made.fault(key, what, "Give both the same size.", "combination")
    elif dims:
        key, dim = next(iter(dims.values()))
        made.put(key, "dim", dim)


def _identity(side: str, start: str, options: JsonObject, values: JsonObject, made: Translation) -> None:
    """Translate the table of ids of a side. start: the path of its options."""
    bounded = any(key.endswith("params.max_norm") and value is not None for key, value in values.items())
    if options.get("params.sparse"):
        if bounded or values.get("training.weight_decay"):
            made.leave_out(f"{start}params.sparse", "sparse gradients go with neither weight decay nor max_norm here")
        else:
            made.put(f"{start}params.sparse", f"{side}.features.identity.sparse", True)
    if options.get("params.max_norm") is not None:
        made.put(f"{start}params.max_norm", "training.optimizer.max_norm", options["params.max_norm"])
    if options.get("params.padding_idx") is not None:
        made.leave_out(f"{start}params.padding_idx")
    if options.get("init.type", "normal") == "normal" and "init.std" in options:
        made.put(f"{start}init.std", f"{side}.features.identity.init_std", options["init.std"])
    elif options.get("init.type", "normal") != "normal":
        made.leave_out(f"{start}init.type", "ids start from a normal distribution")


def _fusion(side: str, start: str, tower: JsonObject, values: JsonObject, made: Translation) -> None:
    """Translate how a side joins the id and the features."""
    name = tower.get("fusion", "gated")
    if tower.get("type") == "embedding" or name == "identity":
        key = f"{start}.type" if tower.get("type") == "embedding" else f"{start}.fusion"
        for group in GROUPS:
            made.put(key, f"{side}.features.{group}", None)
        return
    if not isinstance(name, str) or name not in FUSIONS:
        hint = did_you_mean(str(name), [*FUSIONS, "identity"])
        made.fault(f"{start}.fusion", f"unknown fusion {show(name)}.", hint, "bad value")
        return
    has_layers = tower.get("feature_encoder.type") == "mlp"
    kind = "simple" if name == "concat" and has_layers else FUSIONS[name]
    why = "a gate between the id and the features" if kind == "adaptive_mimic" else ""
    made.put(f"{start}.fusion", f"{side}.fusion.type", kind, why)
    if kind in ("simple", "adaptive_mimic"):
        hidden = tower.get("feature_encoder.hidden_dims", []) if has_layers else []
        made.put(f"{start}.feature_encoder.hidden_dims", f"{side}.fusion.hidden_dims", hidden)
        made.put(f"{start}.feature_encoder.type", f"{side}.fusion.layer_norm", False)
        if "feature_encoder.dropout" in tower:
            made.put(f"{start}.feature_encoder.dropout", f"{side}.fusion.dropout", tower["feature_encoder.dropout"])
        if tower.get("feature_encoder.activation", "relu") != "relu":
            made.leave_out(f"{start}.feature_encoder.activation", "hidden layers have ReLU")
    elif has_layers:
        made.leave_out(f"{start}.feature_encoder", f"'{kind}' has no hidden layers; 'simple' has")
    if kind == "adaptive_mimic":
        key = f"training.loss_weights.mimic_{side}"
        weight = values.get(key, 0.0) if values.get("model.adaptive_mimic.enabled", True) else 0.0
        made.put(key, f"{side}.fusion.mimic", weight)


def _training(values: JsonObject, made: Translation) -> None:
    """Translate the loss, its negatives, early stopping and the split."""
    negatives = "training.negatives_per_positive"
    if negatives in values or any(key.startswith(tuple(TOWERS.values())) for key in values):
        made.put(negatives, "loss.type", "bce", "the project's only loss")
        made.put(negatives, "negatives.type", "uniform")
    if negatives in values:
        made.put(negatives, "negative_ratio", values[negatives])
    if "data.feature_params.user_aggregation" in values:
        key, way = "data.feature_params.user_aggregation", values["data.feature_params.user_aggregation"]
        made.put(key, "features.history.type", "aggregates", "" if way == "mean" else f"means, not {way!r}")
    stopping = "training.early_stopping"
    if values.get(f"{stopping}.enabled") is False:
        made.put(f"{stopping}.enabled", "training.patience", None)
    elif f"{stopping}.patience" in values:
        made.put(f"{stopping}.patience", "training.patience", values[f"{stopping}.patience"])
    if values.get(f"{stopping}.metric") is not None:
        made.put(f"{stopping}.metric", "training.metric", values[f"{stopping}.metric"])
    holdout = values.get("evaluation.holdout")
    if holdout == "latest_per_user":
        made.put("evaluation.holdout", "split.protocol", "leave_last_out")
    elif holdout is not None:
        made.fault("evaluation.holdout", f"unknown value {show(holdout)}.", "Known: latest_per_user.", "bad value")
    if values.get("evaluation.faiss.enabled"):
        made.put("evaluation.faiss.enabled", "index.type", "faiss")
        made.put("evaluation.faiss.enabled", "index.kind", "flat")
