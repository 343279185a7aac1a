"""Mounts of file servers on a machine: which there are, and whether they answer."""
