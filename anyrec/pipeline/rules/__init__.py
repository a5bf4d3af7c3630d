"""What may be listed, and in which order: filters and rerankers, each named by `type` in `pipeline.rerank.rules`."""
