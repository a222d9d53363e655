"""The embedded default: a little world, the text about it, examinations, and a small model trained on it."""
