"""Experiments: which variant serves a user, and what its log says.

Modules:

- `assignment`: the variant of a user, without any state.
- `inference`: rates, differences and the test that may be looked at at any time.
- `off_policy`: the value of another policy from logged propensities.
- `drawn_rows`: the log of lists with drawn items as rows, with their rewards.
- `candidate`: logged requests answered again by a candidate.
- `evaluate`: the value of a candidate from the log of a server.
- `report`: what a log says of an experiment.
"""
