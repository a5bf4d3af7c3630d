"""The tables of metrics, from their definitions in the code; for generate_docs.py."""

from __future__ import annotations


def table(kind: str) -> str:
    """Return the table of the metrics of one kind: `ranks`, `lists` or `classification`."""
    from anyrec.evaluation.definitions import METRICS

    rows = [f"| {one.name} | {one.formula} | {one.denominator} | {one.ties} |" for one in METRICS if one.kind == kind]
    return "\n".join(["| metric | formula | denominator | ties and special cases |", "|---|---|---|---|", *rows])
