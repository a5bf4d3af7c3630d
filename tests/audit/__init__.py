"""The audit: one test for each promised feature, named by its row, by commands and by Python, on real input.

Each test does what the sentence of its row names and asserts the outcome; details are proven by the tests of `tests/`.
Rows without a test yet, since they are built elsewhere: A18 (several machines), B10 (A/B tests), B11 (REST), D9
(tracking), and of C8 the remote providers, of E10 the page of live traffic.
"""
