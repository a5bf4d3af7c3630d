"""A model that serves: lists for requests, events that change the next list, and changes of records.

Modules:

- `query`: a request for a list and its answer, independent of HTTP.
- `served`: one version of a model with the records that were added, and its lists.
- `grouping`: which queries are scored together.
- `record_map`: records by id, of which each change makes another version.
- `pages`: pages of lists whose start depends on their length.
- `fallback`: whether a list is a person's own.
- `clock`: the time of the log.
- `histories`: the events of each user since the model was trained.
- `popularity`: how many people had each item by the events, and not by the training.
- `numbers`, `key_set`: small numbers for ids, and sets of millions of keys.
- `events`: all of these, and which events were received.
- `event_log`: the append-only log of events.
- `files`: the pictures that records of requests name, which are not opened.
- `lookups`: scores, vectors, searches and records of that version.
- `warm_up`: what a version computes before it serves.
- `variants`: the models of experiments, and the log of what was shown.
- `drawn_lists`: the log of lists with items that were drawn at random, for off-policy evaluation.
- `replay`: what was received before a server was started.
- `health`: what keeps a server from its work.
- `service`: the version that serves now, the events, and their changes.
"""
