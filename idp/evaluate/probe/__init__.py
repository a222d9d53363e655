"""Displaced or lost: facts of three sets put to a model before and after compression, and after repair."""
