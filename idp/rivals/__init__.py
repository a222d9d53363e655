"""Other ways to repair a compressed model, to compare with on equal terms."""
