"""The compressed model that is repaired: load it by alias, path or hub id, and describe it."""
