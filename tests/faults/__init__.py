"""Faults, caused for real, and the tools that cause them."""
