"""Filters and reordering rules, each named by `type` in `pipeline.rerank.rules` (docs/rules.md).

Modules:

- `availability`: filter by stock, listed ids, or a window of time.
- `boost`: raise or lower items that meet a condition.
- `calibrate`: give a list the mix of categories of the user's history.
- `demographic`: filter by the group or the age that an item is for.
- `diversity`: limit items of one category, or choose by MMR or DPP.
- `explore`: draw items for given positions, with logged propensities.
- `freshness`: raise new items.
- `history`: filter by the user's earlier interactions.
- `http`: send candidates to an external reranker.
- `pin`: put given items at given positions.
- `quota`: minimum and maximum numbers of items by category.
- `where`: filter by a condition.
"""
