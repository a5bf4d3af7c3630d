"""The `where` language of rules (docs/rules.md).

Modules:

- `conditions`: `Condition`: check a condition against the data, and evaluate it for a request.
- `syntax`: JSON to groups of tests, with every fault of its form.
- `unmatched`: constants that no record has.
- `constants`: constants and values of the moment, read as the type that they are compared with.
- `features`: features of items and users as flat values.
"""
