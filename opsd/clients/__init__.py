"""The outside world, one module per library or tool; every error is translated here."""
