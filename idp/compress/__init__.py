"""Making a compressed model out of a dense one: recipes, calibration text, and what llm-compressor does with them."""
