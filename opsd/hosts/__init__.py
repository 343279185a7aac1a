"""Machines: who they are, what is asked of them over SSH, and what their answers mean."""
