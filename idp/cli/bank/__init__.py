"""`idp bank`: commands for prompt banks, one module each."""
