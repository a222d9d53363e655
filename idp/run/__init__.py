"""Running the untouched model with the chosen prompts: prefixes, scoring, generation."""
