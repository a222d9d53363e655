"""`idp select`: what ways of choosing are worth, and why one chose as it did."""
