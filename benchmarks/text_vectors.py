"""Frozen MiniLM vectors of ML-1M's plots: anyrec, the defaults of sentence-transformers, and a second, cached run.

HF_HUB_OFFLINE=1 python benchmarks/text_vectors.py [--rows 3883]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pyarrow as pa
import torch
from common import DATA, argument_parser, minilm
from sentence_transformers import SentenceTransformer

from anyrec.core.contracts import Context
from anyrec.data.formats.movielens import read_movielens
from anyrec.encoders.sentence import Sentence, embed_texts, fast_dtype


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=3883)
    rows = parser.parse_args().rows
    plots = [plot for plot in read_movielens(DATA / "ml-1m").items["text.plot"].to_pylist() if plot][:rows]
    model = SentenceTransformer(minilm(), device="cpu")
    embed_texts(plots[:64], model, None, "cpu")  # warms up
    model = SentenceTransformer(minilm(), device="cpu")
    started = time.perf_counter()
    reference = torch.from_numpy(model.encode(plots, show_progress_bar=False)).float()
    theirs = time.perf_counter() - started
    started = time.perf_counter()
    ours = embed_texts(plots, model, None, "cpu")
    mine = time.perf_counter() - started
    cosine = torch.cosine_similarity(ours, reference).min().item()
    print(f"{len(plots)} plots, {fast_dtype('cpu')}")
    print(f"sentence-transformers' defaults: {len(plots) / theirs:.0f} rows/s ({theirs:.1f} s)")
    print(f"anyrec: {len(plots) / mine:.0f} rows/s ({mine:.1f} s), {theirs / mine:.2f}x; least cosine {cosine:.5f}")
    with tempfile.TemporaryDirectory() as folder:
        encoder = Sentence(Sentence.Params(model=minilm()), 64)
        encoder.context = Context(cache=Path(folder))
        encoder.encode_column(pa.array(plots))
        started = time.perf_counter()
        encoder.encode_column(pa.array(plots))
        print(f"second run, from the cache: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
