"""Running text: read from files, folders and data sets, and cut into rows of tokens."""
