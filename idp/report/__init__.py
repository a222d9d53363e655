"""Reports of evaluations: what was found, to be read, printed and checked."""
