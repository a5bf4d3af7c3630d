"""Classical recommenders. They are fitted at once, without the training loop, and are the baselines of every report."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from scipy import sparse
from threadpoolctl import threadpool_limits

from anyrec.core.contracts import Classical, Params, TrainingMatrix
from anyrec.core.errors import MissingDependency
from anyrec.core.unit_vectors import unit_rows
from anyrec.data.labels import ages
from anyrec.data.list_columns import flat, offsets_of


class Popularity(Classical):
    """The items with the most users, the same list for everybody."""

    type = "popularity"
    personal = False

    def fit(self, training: TrainingMatrix) -> None:
        self.weights = np.bincount(training.items, minlength=training.matrix.shape[1]).astype(np.float32)

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
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

    B = I - P / diag(P) with P = (X'X + l2 I)^-1, which has a zero diagonal. Solved by Cholesky in float32.

    References:
        Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019.
    """

    type = "ease"
    by_history = True
    most_items = 20_000
    search = {"l2": 2.0}

    class Params(Params):
        l2: float = Field(200.0, ge=1e-6, le=1e9, description="Ridge penalty.")

    def fit(self, training: TrainingMatrix) -> None:
        import torch

        gram = torch.from_numpy((training.matrix.T @ training.matrix).toarray())
        gram.diagonal().add_(self.params.l2)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        inverse /= -inverse.diagonal().clone()
        inverse.fill_diagonal_(0.0)
        self.weights = inverse.numpy()

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
        return rows_times(matrix, self.weights)

    def similar(self, rows: np.ndarray) -> np.ndarray:
        return self.weights[rows]

    def state(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.weights = state["weights"]
        if self.weights.ndim != 2 or len(set(self.weights.shape)) > 1:
            raise ValueError(f"a square matrix was expected, not {self.weights.shape}")


def rows_times(matrix: Any, weights: np.ndarray) -> np.ndarray:
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


class ItemKNN(Classical):
    """Items similar to those of the user, by the cosine of their sets of users. Uses the library `implicit`.

    References:
        Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms, 2001.
    """

    type = "item_knn"
    by_history = True
    search = {"neighbours": 2.0}

    class Params(Params):
        neighbours: int = Field(100, ge=1, le=10**6, description="Most similar items that are kept for each item.")

    def fit(self, training: TrainingMatrix) -> None:
        model = _fit_quietly("nearest_neighbours", "CosineRecommender", training, {"K": self.params.neighbours + 1})
        similarity = sparse.csr_matrix(model.similarity, dtype=np.float32)
        similarity.setdiag(0.0)
        similarity.eliminate_zeros()
        self.similarity = similarity

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
        return (matrix @ self.similarity.T).toarray()

    def similar(self, rows: np.ndarray) -> np.ndarray:
        return self.similarity[rows].toarray()

    def state(self) -> dict[str, np.ndarray]:
        return _pack(self.similarity)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.similarity = _unpack(state)


class Factors(Classical):
    """Base class of the models with a vector for each user and item; the score is their dot product."""

    users: np.ndarray
    items: np.ndarray

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
        return self.users[rows] @ self.items.T

    def similar(self, rows: np.ndarray) -> np.ndarray:
        unit = unit_rows(self.items)
        return unit[rows] @ unit.T

    def state(self) -> dict[str, np.ndarray]:
        return {"users": self.users, "items": self.items}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.users, self.items = state["users"], state["items"]

    def _keep(self, model: Any) -> None:
        self.users, self.items = np.ascontiguousarray(model.user_factors), np.ascontiguousarray(model.item_factors)


class IALS(Factors):
    """Matrix factorisation by weighted least squares. Uses the library `implicit`.

    References:
        Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, 2008.
    """

    type = "ials"
    search = {"regularization": 2.0, "alpha": 3.0, "factors": 2.0}

    class Params(Params):
        factors: int = Field(128, ge=1, le=4096, description="Dimension of the vectors.")
        regularization: float = Field(20.0, ge=0, le=1e6, description="L2 penalty on the vectors.")
        alpha: float = Field(1.0, ge=1e-6, le=1e6, description="Confidence in an interaction, relative to none.")
        iterations: int = Field(15, ge=1, le=10_000, description="Alternating updates of users and items.")

    def fit(self, training: TrainingMatrix) -> None:
        self._keep(_fit_quietly("als", "AlternatingLeastSquares", training, self.params.model_dump()))


class BPRMF(Factors):
    """Matrix factorisation by Bayesian personalised ranking. Uses the library `implicit`.

    References:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009.
    """

    type = "bpr_mf"
    baseline = False  # iALS is also a matrix factorisation, and better on little data

    class Params(Params):
        factors: int = Field(64, ge=1, le=4096, description="Dimension of the vectors.")
        regularization: float = Field(0.01, ge=0, le=1e6, description="L2 penalty on the vectors.")
        learning_rate: float = Field(0.01, ge=1e-10, le=1000, description="Step size of gradient descent.")
        iterations: int = Field(100, ge=1, le=10_000, description="Passes over the training pairs.")

    def fit(self, training: TrainingMatrix) -> None:
        self._keep(_fit_quietly("bpr", "BayesianPersonalizedRanking", training, self.params.model_dump()))


class ContentKNN(Classical):
    """Items with words similar to those of the user's items: TF-IDF of texts and categories, reduced by truncated SVD.

    An item's score is the sum of its cosines to the user's items.

    References:
        Deerwester et al., Indexing by Latent Semantic Analysis, 1990.
    """

    type = "content_knn"
    by_history = True
    needs = ("content",)

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

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
        return (matrix @ self.vectors) @ self.vectors.T

    def similar(self, rows: np.ndarray) -> np.ndarray:
        return self.vectors[rows] @ self.vectors.T

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


def _fit_quietly(part: str, name: str, training: TrainingMatrix, options: dict[str, Any]) -> Any:
    """Return a fitted model of the library `implicit`.

    The library starts its own threads, so those of the linear algebra below them are limited to one.

    Args:
        part: Submodule of the library.
        name: Class in that module.
        training: The training positives.
        options: Arguments of the class.

    Raises:
        MissingDependency: If the library is not installed.
    """
    try:
        module = import_module(f"implicit.{part}")
    except ImportError:
        raise MissingDependency("implicit", "baselines", "this classical model") from None
    if part != "nearest_neighbours":
        options = {**options, "random_state": training.seed, "use_gpu": False}
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(module, name)(**options)
        model.fit(training.matrix, show_progress=False)
    return model


def _pack(matrix: sparse.csr_matrix) -> dict[str, np.ndarray]:
    """Return a sparse matrix as named arrays."""
    shape = np.array(matrix.shape, np.int64)
    return {"values": matrix.data, "columns": matrix.indices, "offsets": matrix.indptr, "shape": shape}


def _unpack(state: dict[str, np.ndarray]) -> sparse.csr_matrix:
    """Return the sparse matrix of named arrays. Raises ValueError if they are not one."""
    matrix = sparse.csr_matrix((state["values"], state["columns"], state["offsets"]), shape=tuple(state["shape"]))
    matrix.check_format(full_check=True)  # scipy does not check indices when it multiplies
    return matrix
