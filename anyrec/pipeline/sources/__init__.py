"""Components that retrieve candidates, each named by `type` in `pipeline.retrieve.sources`.

Modules:

- `model`: the model's own ranking, through the index if there is one.
- `popularity`: items that most users had: overall, recently, or in a group of users.
- `item_to_item`: neighbours of the user's latest items.
- `history`: the user's own earlier items.
- `classical`: a classical model, fitted on the same training positives.
"""
