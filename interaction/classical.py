"""Popularity, EASE and content-kNN: models that are fitted at once, without the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from scipy import sparse

from anyrec.core.contracts import Classical, Params, TrainingMatrix
from anyrec.core.types import SparseMatrix
from anyrec.core.unit_vectors import unit_rows
from anyrec.data.labels import ages
from anyrec.data.list_columns import flat, offsets_of

if TYPE_CHECKING:
    from torch import Tensor


class Popularity(Classical):
    """The items with the most users, the same list for everybody."""

    type = "popularity"
    personal = False
    counts = True

    def fit(self, training: TrainingMatrix) -> None:
        self.weights = np.bincount(training.items, minlength=training.matrix.shape[1]).astype(np.float32)

    def score(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        return np.tile(self.weights, (len(rows), 1))

    def state(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.weights = state["weights"]


class RecentPopularity(Popularity):
    """The items with the most recent users: the weight of a pair is halved with every half-life of its age."""

    type = "recent_popularity"
    needs = ("timestamps",)

    class Params(Params):
        half_life_days: float | None = Field(
            None,
            ge=1e-6,
            le=1e6,
            description="Days in which the weight of a pair is halved; null for a twentieth of the data's time span.",
        )

    search = {"half_life_days": 2.0}

    def automatic(self, training: TrainingMatrix) -> dict[str, float]:
        return {"half_life_days": _twentieth(_days(training))}

    def fit(self, training: TrainingMatrix) -> None:
        half_life = self.params.half_life_days or _twentieth(_days(training))
        old = ages(_days(training), half_life)[0]
        weights = np.bincount(training.items, 0.5**old, minlength=training.matrix.shape[1])
        self.weights = weights.astype(np.float32)


def _days(training: TrainingMatrix) -> np.ndarray:
    """Return (pairs,) float64, the time of each pair in days; 0 without timestamps."""
    return np.zeros(len(training.items)) if training.days is None else training.days


def _twentieth(days: np.ndarray) -> float:
    """Return a twentieth of the time span of the data, in days, without outliers far after all others (`ages`)."""
    span = max(float(np.ptp(days)) if len(days) else 0.0, 1e-6)
    old, late = ages(days, span / 20)
    return span / 20 if not late else max(float(old.max()) * span / 400, 1e-9)


class EASE(Classical):
    """EASE: a linear map from a user's items to the scores of all items, in closed form.

    B = I - P / diag(P) with P = (X'X + l2 I)^-1, which has a zero diagonal. Solved by Cholesky in float32, in the
    items or, if there are few users, in the users (`ridge_inverse`).

    The best l2 of the most popular items is nearly that of all. Validation ndcg@10 of the random split, l2 in steps of
    factor 2: ML-100K 400 with 1,682, 841 and 420 items; ML-1M 800 with 3,883, 1,941 and 970; ml-latest-small 200 with
    9,742, 5,000 and 2,500; Amazon Beauty 50 with 5,000 and 100 with 3,000
    (35, in half steps, with all 12,101).

    References:
        Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019.
    """

    type = "ease"
    by_history = True
    most_items = 20_000
    scoring = "history_weights"
    tuned_items = 5000
    search = {"l2": 2.0}

    class Params(Params):
        l2: float = Field(200.0, ge=1e-6, le=1e9, description="Ridge penalty.")

    def fit(self, training: TrainingMatrix) -> None:
        size = training.matrix.shape[1]
        known = np.unique(training.items)  # the others are uncorrelated with all: their weights are 0
        inverse = ridge_inverse(training.matrix[:, known], self.params.l2)
        inverse /= -inverse.diagonal().clone()
        inverse.fill_diagonal_(0.0)
        self.weights = inverse.numpy()
        if len(known) < size:
            self.weights = np.zeros((size, size), np.float32)
            self.weights[np.ix_(known, known)] = inverse.numpy()

    def score(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        return rows_times(matrix, self.weights)

    def similar(self, rows: np.ndarray) -> np.ndarray:
        return self.weights[rows]

    def state(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.weights = state["weights"]
        if self.weights.ndim != 2 or len(set(self.weights.shape)) > 1:
            raise ValueError(f"a square matrix was expected, not {self.weights.shape}")


def ridge_inverse(matrix: SparseMatrix, l2: float) -> Tensor:
    """Return (items, items) float32, (X'X + l2 I)^-1 up to a factor of the whole matrix.

    With m users and n items it takes about n^3 multiplications to invert in the items. With few users the inverse is
    (I - X' (X X' + l2 I)^-1 X) / l2 (Woodbury), which takes m^3 / 3 + m^2 n + m n^2. With 610 users and
    9,724 items (ml-latest-small), the second takes a tenth of the time of the first, and its error is smaller.

    Args:
        matrix: (users, items) CSR of float32.
        l2: Ridge penalty.
    """
    import torch

    matrix = matrix[np.diff(matrix.indptr) > 0]
    users, items = matrix.shape
    if users**3 / 3 + users**2 * items + users * items**2 > items**3:
        gram = torch.from_numpy((matrix.T @ matrix).toarray())
        gram.diagonal().add_(l2)
        return torch.cholesky_inverse(torch.linalg.cholesky(gram))
    gram = torch.from_numpy((matrix @ matrix.T).toarray())
    gram.diagonal().add_(l2)
    half = torch.linalg.solve_triangular(
        torch.linalg.cholesky(gram), torch.from_numpy(matrix.toarray()), upper=False
    )  # (users, items)
    inverse = (half.T @ half).neg_()
    inverse.diagonal().add_(1.0)
    return inverse


def rows_times(matrix: SparseMatrix, weights: np.ndarray) -> np.ndarray:
    """Return `matrix @ weights` in float32.

    Adds up the rows of `weights` of each user's items (`embedding_bag`), in time proportional to the entries of
    `matrix`. With 10,000 items, 100 of them for each user, it takes 0.5 s for 1,024 users; the product of dense
    matrices takes 6.4 s. If at least a quarter of the cells have an entry, the dense product is faster and is used.

    Args:
        matrix: (users, items) csr.
        weights: (items, n) float32.

    Returns:
        (users, n) float32.
    """
    import torch

    if 4 * matrix.nnz > matrix.shape[0] * matrix.shape[1]:
        return matrix.toarray() @ weights
    return torch.nn.functional.embedding_bag(
        torch.from_numpy(matrix.indices),
        torch.from_numpy(weights),
        torch.from_numpy(matrix.indptr[:-1].astype(matrix.indices.dtype)),
        mode="sum",
        per_sample_weights=torch.from_numpy(matrix.data.astype(np.float32)),
    ).numpy()


class ContentKNN(Classical):
    """Items with words similar to those of the user's items: TF-IDF of texts and categories, reduced by truncated SVD.

    An item's score is the sum of its cosines to the user's items, so a user's vector is the sum of those of the items.

    References:
        Deerwester et al., Indexing by Latent Semantic Analysis, 1990.
    """

    type = "content_knn"
    by_history = True
    factorised = True
    needs = ("content",)
    scoring = "history_vectors"

    class Params(Params):
        most_words: int = Field(
            50_000, ge=1, le=10**7, description="Most words in the vocabulary, the most frequent first."
        )
        dimension: int = Field(256, ge=1, le=4096, description="Dimension of the vectors after the truncated SVD.")

    def fit(self, training: TrainingMatrix) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        options: dict[str, Any] = {"max_features": self.params.most_words, "sublinear_tf": True, "dtype": np.float32}
        words = TfidfVectorizer(**options)
        texts = item_words(training.item_table)
        content: Any  # a csr matrix; scipy has no type stubs
        try:
            content = words.fit_transform(texts)
        except ValueError:  # the texts have no words
            content = sparse.csr_matrix((len(texts), 1), dtype=np.float32)
        if min(content.shape) > self.params.dimension:
            vectors = TruncatedSVD(self.params.dimension, n_iter=2, random_state=training.seed).fit_transform(content)
        else:
            vectors = content.toarray()
        self.vectors = unit_rows(vectors).astype(np.float32)

    def user_vectors(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        return matrix @ self.vectors

    def item_vectors(self) -> np.ndarray:
        return self.vectors

    def state(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.vectors = state["vectors"]


def item_words(table: pa.Table) -> list[str]:
    """Return one string for each item: its texts, and each category as one word that includes the feature's name."""
    parts = [pa.array([""] * len(table))]
    for name in table.column_names:
        group = name.split(".")[0]
        if group not in ("text", "categorical"):
            continue
        column = table.column(name).combine_chunks()
        values, owners = flat(column)
        values = _word(name, values) if group == "categorical" else values.cast(pa.string())
        lists = pa.ListArray.from_arrays(pa.array(offsets_of(owners, len(table)).astype(np.int32)), values)
        parts.append(pc.binary_join(lists, " "))
    return pc.binary_join_element_wise(*parts, " ").to_pylist()


def _word(name: str, values: pa.Array) -> pa.Array:
    """Return each category as one word: the name of its feature, an underscore, and the category."""
    plain = pc.replace_substring_regex(values.cast(pa.string()), r"\W+", "_")
    return pc.binary_join_element_wise(name.replace(".", "_"), plain, "_")
