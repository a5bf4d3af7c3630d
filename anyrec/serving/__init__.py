"""Layer 7: answers to requests in the forms that users read: documents, files, explanations.

Modules:

- `result`: the result document of a request: embeddings, scores, lists.
- `batch`: lists of all users and embeddings, written block by block to files; also on a Ray cluster.
- `model_source`: how another process loads a model.
- `list_files`: tables of lists as Parquet, CSV, JSON Lines or JSON.
- `explain`: explanations of recommended items.
- `form`, `item_map`, `runs`: what the page shows of features, of the catalogue and of training runs.
- `live`: a model that serves, with the events and records that change it meanwhile.
- `experiments`: which variant serves a user, and what the log says of it.
- `http`: its API (`anyrec serve`).
- `page`: the page in the browser: HTML, styles and scripts.
- `pyfunc`: loads a model for MLflow.
- `masking`: what the interaction reads of users and items without one feature or history item at a time.
"""
