"""Shares: what is on them, what may be copied as files, and the engines that copy it."""
