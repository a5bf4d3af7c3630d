"""The shelf between encoders and heads: fusions, user-item interactions, negative samplers."""
