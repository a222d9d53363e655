"""FlexRound (arXiv 2306.00317): rounding learned by element-wise division, block by block."""
