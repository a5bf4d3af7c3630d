"""Backends of vector indexes, one file for each library; found like plugins.

exact    every vector, by torch, on the processor or on a GPU
faiss    flat, HNSW, IVF, IVF-PQ and 8-bit scalar quantisation
annoy    forests of random trees
usearch  HNSW with removal, in 1, 2 or 4 bytes a number
qdrant   a server
sharded  several indexes of one of these types
"""
