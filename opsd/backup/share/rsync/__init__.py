"""rsync as an engine for shares: hard-linked snapshots with their checksums."""
