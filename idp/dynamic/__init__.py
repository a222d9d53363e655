"""A model that chooses a prompt for every input and runs with it: the drop-in for `generate`."""
