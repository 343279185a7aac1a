"""Backups: where they are kept, what proves them, which stay, and how they come back."""
