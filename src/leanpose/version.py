"""The version of leanpose, as cards and exports state it."""

__version__ = "0.2.0"
