"""Own keys in the schema of a component's option. Importable without torch."""

PARTS = "parts_of_kind"
"""Key of a field's schema: the field is a list of components of this kind."""
TUNE = "tune"
"""Key of a field's schema: the values that `anyrec tune` searches by default."""
ONLY_WITH = "only_with"
"""Key of a field's schema: the values of other options with which the option has an effect."""
