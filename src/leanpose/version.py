"""The version of leanpose, as cards, exports and crop caches state it."""

__version__ = "0.2.0"
