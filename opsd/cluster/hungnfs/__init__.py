"""What a hung mount stops: pods, claims and databases, and what helps them."""
