"""How another process loads the model of this one: from its folder, with the same changes of its config."""

from __future__ import annotations

from dataclasses import dataclass

from anyrec.core.errors import Fault, ModelError
from anyrec.core.types import JsonObject
from anyrec.recommender import Recommender
from anyrec.retrieval.model_index import component_of, has_index, is_exhaustive


@dataclass(frozen=True)
class ModelSource:
    """A saved model, and what was changed since it was loaded, as plain values.

    Attributes:
        directory: The model's folder.
        model_id: Its id.
        counts: Number of users, items, and pairs of a user and a seen item.
        config: The config as it is now.
        plugins: Folders of the plugins that it may use.
        trusted: Whether it may use what it names outside its folder.
        image_root: Folder of the images; None if they may not be opened.
    """

    directory: str
    model_id: str
    counts: tuple[int, int, int]
    config: JsonObject
    plugins: tuple[str, ...]
    trusted: bool
    image_root: str | None

    @classmethod
    def of(cls, recommender: Recommender) -> ModelSource:
        """Return how the other processes load a recommender.

        Raises:
            ModelError: If it is not saved as it is now, or has an index that is not saved.
        """
        model, context = recommender.model, recommender.model.context
        if model.directory is None or model.widened or recommender.joined or recommender.updated:
            what = "other processes load the model from its folder, and this one is not saved as it is now."
            raise ModelError(Fault("model", what, "Save it, and load it again.", "not saved"))
        component = component_of(model)
        if model.has_vectors and not is_exhaustive(model, component) and not has_index(model):
            what = f"each process would build an index of type '{component.type}' of its own."
            raise ModelError(Fault("/index/type", what, "Build it once, with `anyrec index`.", "not saved"))
        files = [one.path for one in recommender.registry.plugins() if not one.module.startswith("anyrec.")]
        folders = {str(path.parent.absolute()) for path in files if path is not None}
        return cls(
            str(model.directory.absolute()),
            model.model_id,
            _counts(recommender),
            recommender.config.model_dump(mode="json"),
            tuple(sorted(folders)),
            context.trusted,
            str(context.root.absolute()) if context.open_files else None,
        )

    def load(self) -> Recommender:
        """Load the model.

        Raises:
            ModelError: If there is no such model here, or another one.
        """
        options = {"trust_plugins": self.trusted, "plugins": self.plugins, "image_root": self.image_root}
        loaded = Recommender.load(self.directory, **options)
        if (loaded.model.model_id, _counts(loaded)) != (self.model_id, self.counts):
            what = "the model in this folder is another one than that of the process that started the work."
            raise ModelError(Fault(self.directory, what, "Save the model, and load it again.", "not saved"))
        return loaded.with_config(self.config, progress=False)


def _counts(recommender: Recommender) -> tuple[int, int, int]:
    model = recommender.model
    return len(model.dataset.users), len(model.dataset.items), len(model.seen.items)
