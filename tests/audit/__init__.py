"""The audit: one test for each promised feature, named by its row, by commands and by Python, on real input.

Each test does what the sentence of its row names and asserts the outcome; details are proven by the tests of `tests/`.
Rows whose tests are elsewhere: A18 (tests/test_distributed.py, tests/test_ray.py), B10 (tests/test_experiments.py), B11
(tests/test_serve.py), D9 (tests/test_tracking.py), the remote providers of C8 (tests/test_sources_stores.py), and the
page of live traffic of E10 (tests/test_page.py).
"""
