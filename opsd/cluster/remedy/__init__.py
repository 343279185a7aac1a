"""Move the pods of a lost node to a living one, only when it is proven that they ended there."""
