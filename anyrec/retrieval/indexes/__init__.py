"""Vector indexes: exact, and what faiss, annoy, usearch and qdrant offer. Each file is one library."""
