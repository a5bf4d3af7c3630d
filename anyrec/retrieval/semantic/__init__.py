"""Search of items by text or image."""
