"""Encoders: one feature's column to vectors."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from anyrec.core.context import Context, context_of_request
from anyrec.core.params import Params as Options
from anyrec.core.ragged import Prepared, Ragged, Values
from anyrec.core.types import ComponentParams, JsonObject
from anyrec.core.windows import Batch, Events, PackedSequences


class Encoder(nn.Module):
    """Turns one feature's column into vectors.

    The frame calls `fit` with the training rows, `prepare` once with all rows, `build`, and then `forward` in every
    step with rows of the prepared values. A saved encoder is made again with `restore` and `build`.

    A missing value needs no treatment in `forward`: the fusion replaces the output for an absent row by a learned
    vector. The output and its gradient must be finite all the same.

    Args:
        params: The options; by default those of `Params()`.
        output_dim: Dimension of the vectors that `forward` returns.

    Attributes:
        type: Name of the encoder in a config.
        group: Feature group that it reads (`text`, `image`, ...); by default its `type`.
        role: Within the group `temporal`: `numbers`, `timestamps` or `items`.
        preferred: True for the encoder that its group gets if the config names none. Else it is an encoder whose type
            is the name of the group.
        joint: True if `prepare` returns vectors of a space that holds texts and images, as with CLIP; `embed_texts`
            and `embed_images` then embed others in this space.
        untrained: True if `prepare` returns vectors without `fit`, training or files of weights. Search compares items
            by such an encoder if the model reads them by none of its own.
        reads_files: True if the values are names of files or addresses, which `prepare` opens. A server then leaves out
            those that requests name, and a model of unknown origin says that it opens none.
        preparation: Name of the NumPy program that prepares the column in an exported model
            (`anyrec.data.preparation.kinds.KINDS`); empty if there is none, so that the encoder cannot be exported. It
            counts only for the class that sets it, since a subclass may prepare otherwise.
        params: The options.
        output_dim: Dimension of the vectors that `forward` returns.
        input_dim: Last dimension of the prepared values if they are a float tensor, set before `build`; else None.
        where: JSON pointer of the encoder's options in the config, for error messages.

    Example:
        class Length(Encoder):
            type = "length"
            group = "text"

            def prepare(self, column):
                lengths = pc.fill_null(pc.utf8_length(column), 0)
                return torch.log1p(torch.tensor(lengths.to_pylist()).float()).unsqueeze(1)
    """

    type: ClassVar[str]  # pyright: ignore[reportIncompatibleMethodOverride]  nothing calls Module.type(dtype)
    group: ClassVar[str] = ""
    role: ClassVar[str] = ""
    preferred: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    untrained: ClassVar[bool] = False
    reads_files: ClassVar[bool] = False
    preparation: ClassVar[str] = ""

    Params: ClassVar[type[Options]] = Options
    """The class of the options: a component declares its own as a nested class `Params`."""

    def __init__(self, params: BaseModel | None = None, output_dim: int = 64):
        super().__init__()
        self.params: ComponentParams = params if params is not None else type(self).Params()
        self.output_dim = output_dim
        self.input_dim: int | None = None
        self.where = f"/features/{self.group}"
        self.context = Context()

    @property
    def context(self) -> Context:
        """The settings to prepare with: those of the request during a request, else those of the model.

        A request is prepared in the thread of its caller. Read `self.context` there, before starting threads.
        """
        return context_of_request() or self._context

    @context.setter
    def context(self, value: Context) -> None:
        self._context = value

    @property
    def space(self) -> str:
        """The name of the space of the vectors that `prepare` returns: features in one space can be compared."""
        return repr((self.type, self.params))

    @property
    def graph_layers(self) -> int:
        """Times that the vectors are propagated along the graph of training positives (LightGCN); 0 for none.

        The frame reads it of the encoder of ids, which must be the same on both sides.
        """
        return 0

    @classmethod
    def wants_sparse_gradients(cls, params: BaseModel) -> bool:
        """Whether an encoder with these options has a table with sparse gradients: by default, if `sparse` is set.

        Optimizer options that need dense gradients are then refused.
        """
        return bool(getattr(params, "sparse", False))

    @classmethod
    def example(cls) -> pa.Array | None:
        """Return a column for the conformance kit: at least 8 rows, one of them null.

        None (the default) takes the kit's example for the encoder's group.
        """
        return None

    def fit(self, column: pa.Array) -> None:
        """Learn vocabularies and statistics.

        Args:
            column: (rows,) the training rows, nulls included.
        """

    def prepare(self, column: pa.Array) -> Values | Prepared:
        """Convert a column to tensors. The result for a row must not depend on the other rows.

        Args:
            column: (rows,)

        Returns:
            A Tensor, a Ragged, or a dict of them, with one row for each record. Return `Prepared(values, present)` if
            more values are missing than the column's nulls (unreadable files, unknown ids).
        """
        raise NotImplementedError(f"encoder '{self.type}' has no prepare()")

    def build(self) -> None:
        """Create all layers. Called once, after `fit` or `restore`, before the optimizer exists.

        By default creates `self.project`, a linear layer from `input_dim` to `output_dim`.
        """
        if self.input_dim is not None:
            self.project = nn.Linear(self.input_dim, self.output_dim)

    def extend(self, ids: pa.Array, start: Tensor) -> None:
        """Learn vectors of further ids from now on (`anyrec update`). Called only for the encoder of the records' ids.

        By default nothing is extended, and new ids stay missing values.

        Args:
            ids: (ids,) distinct ids that `prepare` does not know.
            start: (output_dim,) the vector to start each of them with.
        """

    def forward(self, values: Any) -> Tensor:
        """Compute the feature vectors.

        Args:
            values: (batch, ...) rows of what `prepare` returned.

        Returns:
            (batch, output_dim) float.
        """
        return self.project(values)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed texts in the space of the prepared vectors. Called only if `joint`.

        Returns:
            (texts, dim) float32.
        """
        raise NotImplementedError(f"encoder '{self.type}' has no embed_texts()")

    def embed_images(self, names: list[str]) -> Tensor:
        """Embed image files in the space of the prepared vectors. Called only if `joint`.

        Returns:
            (names, dim) float32; zeros for files that cannot be read.
        """
        raise NotImplementedError(f"encoder '{self.type}' has no embed_images()")

    def saved_params(self) -> JsonObject:
        """Return the options that a saved encoder is made with again, as JSON values.

        Leave out options that `state` and the weights replace.
        """
        return self.params.model_dump(mode="json")

    def state(self) -> JsonObject:
        """Return what `fit` learned, complete enough for `restore`.

        JSON values, and Arrow arrays, NumPy arrays and tensors of any rank, also in objects and lists.
        """
        return {}

    def restore(self, state: JsonObject) -> None:
        """Take back what `state` returned."""

    def load(self) -> None:
        """Load what `prepare` reads and a saved model does not contain, such as a pretrained network.

        A server does it before it answers, so that no request waits for it. By default there is nothing to load.
        """

    def export_fault(self) -> str:
        """Return why the encoder cannot be exported, as the end of a sentence; empty if it can."""
        declared = bool(vars(type(self)).get("preparation"))
        return "" if declared else "its prepare() has no counterpart in NumPy (`preparation`)"

    def exported_state(self) -> JsonObject:
        """Return what `preparation` reads besides the options: by default `state`."""
        return self.state()

    def exported_layers(self) -> nn.Module:
        """Return the module that an exported graph runs on what `preparation` returned, by default the encoder itself.

        It is called as `forward`, with a `Padded` instead of each Ragged. torch.export traces it, so its operations
        must not depend on values.
        """
        return self

    def encode_column(self, column: pa.Array | pa.ChunkedArray) -> Prepared:
        """Call `prepare`, derive the presence mask if the encoder returns none, and set `input_dim`.

        Args:
            column: (rows,)

        Returns:
            The values with the mask (rows,). Without a mask of the encoder's own, the column's nulls and empty lists
            are absent.
        """
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        made = self.prepare(column)
        if not isinstance(made, Prepared):
            present = torch.from_numpy(column.is_valid().to_numpy(zero_copy_only=False).copy())
            if isinstance(made, Ragged):
                present &= made.lengths > 0
            made = Prepared(made, present)
        values = made.values
        if isinstance(values, Tensor) and values.is_floating_point() and values.dim() > 1:
            self.input_dim = values.shape[-1]
        return made


class HistoryEncoder(Encoder):
    """Encodes a user's past interactions with the vectors of the item tower. The vector changes with every interaction.

    `prepare` receives lists of `anyrec.data.histories.EVENT` and returns `anyrec.core.windows.Events`.

    Attributes:
        window: Number of latest interactions that the encoder reads; None if it reads no windows and has no `states`.
        ordered: Whether interactions at the same time as a target, but earlier in the file, belong to its history.
        mask_share: Fraction of interactions that are hidden in training and predicted from both sides; None if each
            interaction is predicted from those before it.
        item_dim: Dimension of the item tower's vectors; the frame sets it before `build`.
        unordered: Whether the order of interactions has no effect. In training, a fraction `mask_share` of a user's
            interactions is then hidden and predicted from the others, all at once (`anyrec.core.windows.SetPacker`).
        uses_own_threads: Whether `states` distributes its rows over threads itself, with `anyrec.core.parallel`.

    Example:
        class LatestItem(HistoryEncoder):
            type = "latest_item"

            def __init__(self, params=None, output_dim=64):
                super().__init__(params, output_dim)
                self.window, self.ordered, self.mask_share = 2, False, None

            def build(self):
                self.project = nn.Linear(self.item_dim, self.output_dim)

            def states(self, windows, items):  # a token without an item is a user's first event
                found = self.project(items)[windows.items.clamp(min=0)]
                return torch.where(windows.items.unsqueeze(-1) >= 0, found, 0.0)

            ...  # prepare and forward as in encoders/history.py
    """

    group = "history"
    window: int | None
    ordered: bool
    mask_share: float | None
    item_dim: int
    unordered: bool = False
    uses_own_threads: bool = False

    def states(self, windows: PackedSequences, items: Tensor) -> Tensor:
        """Compute the user's vector at each token.

        Args:
            windows: (rows, length) tokens.
            items: (items, item_dim) vectors that `windows.items` indexes.

        Returns:
            (rows, length, output_dim).
        """
        raise NotImplementedError(f"encoder '{self.type}' has no states()")

    def before(self, batch: Batch, values: Any, items: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the users' vectors before each of the batch's positives.

        Args:
            batch: The positives of a training step.
            values: What `prepare` returned, all rows.
            items: (items, item_dim) vectors that `batch.windows` indexes.

        Returns:
            (positives, output_dim) vectors, and (positives,) bool, False if the user has no earlier interaction.
        """
        assert batch.windows is not None and batch.read is not None
        states = self.states(batch.windows, items).flatten(0, 1)
        return states[batch.read.clamp(min=0)], batch.read >= 0

    def forward(self, values: Any, items: Tensor | None = None) -> Tensor:
        """Compute the users' vectors after all their interactions.

        Args:
            values: The prepared histories of a batch of users.
            items: (items, item_dim) vectors of the items that the histories refer to.

        Returns:
            (batch, output_dim).
        """
        raise NotImplementedError(f"encoder '{self.type}' has no forward()")

    def encode_variants(self, values: Events, items: Tensor) -> Tensor:
        """Compute the vectors of histories that are nearly the same, such as a user's without each of the items.

        An encoder can use that they begin with the same events; neighbouring rows have the most in common. By default
        as `forward`, whose arguments and result these are.
        """
        return self(values, items)
