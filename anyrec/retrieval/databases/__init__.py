"""Vector databases that item vectors are pushed to. Each is a component (docs/plugins.md).

qdrant: Qdrant.
milvus: Milvus, and the local files of Milvus Lite.
pgvector: PostgreSQL with the extension pgvector.
"""
