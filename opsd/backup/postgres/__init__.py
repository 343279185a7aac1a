"""Databases: what is on a server, how it is dumped and proven, and how it comes back."""
