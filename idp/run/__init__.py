"""Running the untouched model under given prompts: prefixes, scoring, what `generate` needs."""
