"""The tests of opsd."""
