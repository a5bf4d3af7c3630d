"""The definition of every metric, in words. docs/metrics.md is generated from it.

Symbols: m is the number of a user's distinct held-out items, k the cut-off, n the length of the user's list (at most
k), N the number of items that can be ranked. A hit at k is a held-out item with rank <= k.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class MetricDefinition(NamedTuple):
    """The definition of a metric.

    Attributes:
        name: As it is printed; `@k` stands for the cut-off.
        kind: What it is computed from: the ranks of held-out items, the lists (right or wrong), or labelled pairs.
        formula: For one user, or for all pairs of a classification.
        denominator: What the sum in the formula is divided by.
        ties: How equal scores, empty lists and undefined values count.
    """

    name: str
    kind: Literal["ranks", "lists", "classification"]
    formula: str
    denominator: str
    ties: str


METRICS = (
    MetricDefinition("recall@k", "ranks", "hits / m", "m", "half a place"),
    MetricDefinition(
        "precision@k", "ranks", "hits / k", "k, also if fewer than k items are held out or listed", "half a place"
    ),
    MetricDefinition("hit_rate@k", "ranks", "1 if there is a hit, else 0", "-", "half a place"),
    MetricDefinition(
        "ndcg@k",
        "ranks",
        "sum over hits of 1 / log2(rank + 1), divided by its maximum",
        "sum of 1 / log2(i + 1) for i = 1 .. min(m, k)",
        "half a place: a rank of 1.5 gains 1 / log2(2.5)",
    ),
    MetricDefinition(
        "map@k",
        "ranks",
        "sum over hits of (number of hits at or above it / its rank), divided by min(m, k)",
        "min(m, k)",
        "half a place",
    ),
    MetricDefinition("mrr@k", "ranks", "1 / best rank if that is a hit, else 0", "-", "half a place"),
    MetricDefinition(
        "auc",
        "ranks",
        "fraction of (ranked held-out item, other candidate) pairs in the right order; n ranked held-out items",
        "n (candidates - n); undefined if n is 0, if all candidates were held out, or if only lists are known",
        "a tied pair counts half",
    ),
    MetricDefinition(
        "novelty@k",
        "lists",
        "sum over the list of -log2(users who had the item / users), divided by n",
        "n; 0 for an empty list",
        "an item that nobody had counts as if one user had it",
    ),
    MetricDefinition(
        "popularity@k",
        "lists",
        "sum over the list of the number of users who had the item, divided by n",
        "n; 0 for an empty list",
        "0 for an item that nobody had",
    ),
    MetricDefinition(
        "serendipity@k",
        "lists",
        "sum over hits in the list of max(0, popularity rank - place) / N, divided by k",
        "k",
        "equally popular items are ranked by row",
    ),
    MetricDefinition(
        "diversity@k",
        "lists",
        "mean over pairs in the list of 1 - cosine of their categories",
        "n (n - 1) / 2; undefined if n < 2",
        "an item without a category has distance 1 to all others",
    ),
    MetricDefinition(
        "calibration@k",
        "lists",
        "sum over categories of p ln(p / (0.99 q + 0.01 p)); p is the fraction of the category in the user's "
        "history, q in the list (Steck, 2018); 0 is perfect",
        "each item is spread evenly over its categories; p and q sum to 1",
        "items without a category are ignored; undefined if none is left in the history or in the list",
    ),
    MetricDefinition(
        "coverage@k",
        "lists",
        "number of items in at least one list / N",
        "N",
        "items that cannot be ranked count in neither",
    ),
    MetricDefinition(
        "gini@k",
        "lists",
        "sum of (2 i - N - 1) x_i, divided by (N sum of x); x_i is the number of lists that contain "
        "the item, ascending; 0 if all items are listed equally often, close to 1 for a single item",
        "N",
        "items in no list count; 0 if no item is in any list",
    ),
    MetricDefinition("accuracy", "classification", "(TP + TN) / (P + N)", "all pairs", "-"),
    MetricDefinition(
        "precision", "classification", "TP / (TP + FP)", "pairs classified as positive", "0 if there is none"
    ),
    MetricDefinition("recall", "classification", "TP / P", "positive pairs", "0 if there is none"),
    MetricDefinition(
        "f1",
        "classification",
        "2 TP / (2 TP + FP + FN)",
        "-",
        "0 if there is no positive pair and none is classified as positive",
    ),
    MetricDefinition(
        "auc",
        "classification",
        "fraction of (positive, negative) pairs in the right order, for any threshold",
        "P N",
        "a tied pair counts half; null if P or N is 0",
    ),
)
"""All metrics, in the order of docs/metrics.md."""
