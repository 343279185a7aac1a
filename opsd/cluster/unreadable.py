"""The cluster could not be looked at: there may be things in it that nobody backs up. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from opsd.clients.kube.errors import Forbidden
from opsd.errors import ConfigError, OpsdError
from opsd.model import Finding, Severity
from opsd.text import printable, shortened

SUMMARY_CHARACTERS = 120


def unreadable(
    errors: Sequence[OpsdError], *, subject: str, what: str, if_misconfigured: str
) -> Finding:
    """That a search came to nothing, or not to all.

    Args:
        errors: why, at least one.
        subject: of the finding: the search itself.
        what: that was looked for, in the plural.
        if_misconfigured: the remedy when the first of the errors is one of the configuration.
    """
    text = "; ".join(printable(str(error)) for error in errors)
    remedy = "is the API server well? kubectl get --raw /readyz"
    if any(isinstance(error, Forbidden) for error in errors):
        remedy = "give opsd the rights of docs/discovery.md#rights"
    elif isinstance(errors[0], ConfigError):
        remedy = if_misconfigured
    return Finding(
        check="cluster.unreadable",
        subject=subject,
        severity=Severity.CRITICAL,
        summary=shortened(f"{what} cannot be looked for: {text}", SUMMARY_CHARACTERS),
        remedy=remedy,
        facts={"error": text},
    )
