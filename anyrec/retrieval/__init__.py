"""Layer 3, nearest vectors: indexes with one contract, filters that leave k results, and search by text or image.

inputs           checks of keys and vectors
results          SearchResult and the order of its entries
store            the float32 vectors of an index and their keys
exclusions       what single queries must not find
scan             exact search, block by block
filtered_search  min(k, eligible) results with any filter and any backend
inner_product    one more dimension for dot products of vectors of unequal norm
index            Index, the contract that a backend implements
create_index     an index of vectors that a program has, without a model
recall           the fraction of the truly nearest that a search finds
tuning           search width and norm weight by trying
benchmark        recall, size and queries per second
vector_order     near vectors at near addresses
item_index       an index of item ids, as one folder
choose           the cheapest index that reaches a recall
model_index      the index of a model's items
best_items       the best items of users, by that index or by scoring all items
blend_candidates the best items of a blend among the candidates of its towers and members
vector_index     indexes of other vectors of the items, of the type of the model's index
similar          items similar to given items
exhaustive       the exact index for searches that are not configured
vector_database  VectorDatabase, the contract of databases, and their addresses
push             the vectors of a model's items to a database
embedding_files  embeddings as Parquet, NumPy or faiss files
databases/       databases: qdrant, milvus, pgvector
indexes/         backends: exact, faiss, annoy, usearch, qdrant; sharded: several of them
semantic/        items by a text or an image
"""
