"""Making prompts: examples, objective, tuning loop, partition of the data, and the losses selectors learn from."""
