"""opsd: a day-2 operations daemon for small bare-metal Kubernetes clusters."""

__version__ = "0.1.0"
