"""Pictures: those that requests bring, and thumbnails of those that records name."""

from __future__ import annotations
