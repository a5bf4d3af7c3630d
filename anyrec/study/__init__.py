"""Layer 7: `anyrec tune`, the search of a model's options on the validation part.

- tune: the study, the model of its best trial, and the report; `anyrec.tune`.
- space: the search space: the searched keys, checked against the config and the data.
- marks: the keys that are searched by default.
- trial_configs: the configs of trials.
- trials: one trial: a training, measured on the validation part.
- journal: the Optuna study in a journal file.
- driver: the course of a study: which trial is next, which ends early, which files are kept.
- workers: trials in this process or in other processes.
- ray_pool: trials on the workers of a Ray cluster.
- result: what a study found.
- pages: the report of a study.

`anyrec.training.tune` is something else: the options of a single classical model, for baselines and blends.
"""
