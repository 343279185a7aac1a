"""Every shape that the state file ever had, oldest first. Append only; never edit an entry.

Entry N takes a file from version N to version N+1 (``PRAGMA user_version``). All steps
that a file needs happen in one transaction, after a copy of the file was put beside it.
"""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # A run without an outcome has begun and was not recorded.
        """
        CREATE TABLE runs (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            job TEXT NOT NULL,
            slot TEXT NOT NULL,
            started_at TEXT NOT NULL,
            outcome TEXT,
            duration_s REAL NOT NULL DEFAULT 0,
            findings TEXT NOT NULL DEFAULT '[]',
            artifacts TEXT NOT NULL DEFAULT '[]',
            seen TEXT NOT NULL DEFAULT '[]',
            error TEXT NOT NULL DEFAULT ''
        ) STRICT
        """,
        "CREATE INDEX runs_by_job ON runs (job, seq)",
        # Outlives the pruning of runs: what is due follows from it.
        "CREATE TABLE slots (job TEXT PRIMARY KEY, last_slot TEXT NOT NULL) STRICT",
        """
        CREATE TABLE open_findings (
            job TEXT NOT NULL,
            check_name TEXT NOT NULL,
            subject TEXT NOT NULL,
            severity INTEGER NOT NULL,
            opened_at TEXT NOT NULL,
            finding TEXT NOT NULL,
            PRIMARY KEY (job, check_name, subject)
        ) STRICT
        """,
        """
        CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            key TEXT NOT NULL UNIQUE,
            severity INTEGER NOT NULL,
            title TEXT NOT NULL,
            body TEXT NOT NULL,
            created_at TEXT NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            next_try_at TEXT NOT NULL,
            last_error TEXT NOT NULL DEFAULT '',
            accepted_by TEXT NOT NULL DEFAULT '[]',
            delivered_at TEXT
        ) STRICT
        """,
        "CREATE INDEX outbox_waiting ON outbox (next_try_at) WHERE delivered_at IS NULL",
    ),
    (
        "ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN retry_at TEXT",
        "CREATE INDEX runs_by_slot ON runs (job, slot)",
        "ALTER TABLE outbox ADD COLUMN tags TEXT NOT NULL DEFAULT '[]'",
        # What people were told: one document, so that every store can keep it.
        """
        CREATE TABLE alerts (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            content TEXT NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE pauses (
            job TEXT PRIMARY KEY,
            since TEXT NOT NULL,
            until TEXT NOT NULL,
            reason TEXT NOT NULL
        ) STRICT
        """,
        # Written to prove that it can be.
        """
        CREATE TABLE proof (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            written_at TEXT NOT NULL
        ) STRICT
        """,
    ),
    ("ALTER TABLE runs ADD COLUMN unseen TEXT NOT NULL DEFAULT '[]'",),
)
