"""The `where` conditions of rules: syntax, constants, features and their evaluation."""
