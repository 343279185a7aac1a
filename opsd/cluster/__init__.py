"""What opsd knows about clusters: pure knowledge about objects that somebody else read."""
