"""Layer 4, request to k items: retrieve candidates, rank them, apply rules.

Modules:

- `contracts`: `Request`, `Lists` and the base classes `Source` and `Rule`.
- `requests`: requests in blocks of users, live or as they were before a part of the split.
- `draws`: random numbers of each user that do not depend on the others.
- `candidate_lists`: operations on lists: build, filter, sort and merge them.
- `model_order`: the model's own scores and order of candidates.
- `pipeline`: `Pipeline`, which runs one request through all stages.
- `chances`: the probability that lists show given items, for off-policy evaluation.
- `apply_rules`: filters and rules on lists that were made elsewhere, without a model.
- `answer`: the result of a request as tables, with the time of each stage.
- `trace`: a table of what each stage did with each item.
- `fit`: fit, evaluate, save and load a pipeline together with its model.
- `item_search`: search of items by text or image, with conditions and personalisation.

Folders:

- `sources`: components that retrieve candidates.
- `ranking`: the ranker, its features and its training.
- `rules`: components that filter or reorder lists.
- `conditions`: the `where` language of rules.
- `reranking`: what several rules share: reordering, quotas, diversity, item files.
"""
