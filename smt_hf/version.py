"""The version of the package; it imports nothing, so that anybody may ask for it."""

__version__ = "0.2.0"
