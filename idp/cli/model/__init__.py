"""`idp model`: what is known of a model, and what compression cost it."""
