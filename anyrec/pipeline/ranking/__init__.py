"""The second stage: a ranker that corrects the model's order of the candidates.

Modules:

- `ranker`: `Ranker`, its creation, saving and loading.
- `signals`: what the pipeline itself knows about a candidate: ranks, scores, popularity, age.
- `train_ranker`: training on the candidates that the first stage returns.
"""
