"""From files to labelled, split columns.

read (any format in) -> columns (values to Arrow, every fault found) -> validate (ids, duplicates) -> roles (what a temporal
list holds) -> limits -> dataset; then labels, split, leaks, positives. Beside them: images, convert, synth.
"""
