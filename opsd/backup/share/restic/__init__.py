"""restic as an engine for shares."""
