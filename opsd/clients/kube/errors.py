"""Why the API server did not do what was asked, sorted by what the caller can do about it.

Every text names the action and the object: ``list pods in monitoring: 403 Forbidden:
serviceaccount opsd/opsd cannot list pods``.
"""

from __future__ import annotations

from opsd.errors import PermanentError, TransientError


class NotFound(PermanentError):
    """There is no such object, or no such kind. After a delete: somebody else was first."""


class Forbidden(PermanentError):
    """401 or 403: opsd is not let in, or may not do this; its role must be changed."""


class Refused(PermanentError):
    """Any other 4xx, and answers that are none: the request will not get better by itself."""


class Conflict(TransientError):
    """409: the object is there already, or is not the one, or not in the state, that was seen.

    Nothing was done. Read it again before anything else.
    """


class Blocked(TransientError):
    """An eviction that a PodDisruptionBudget does not allow now."""


class Expired(TransientError):
    """410: the version from which a list or watch was to go on is forgotten; list again."""


class Unreachable(TransientError):
    """No answer, 429, 5xx or garbage: nothing is known of the cluster.

    After a write: it may have been carried out or not.
    """

    def __init__(self, text: str, *, status: int = 0, retry_after_s: float = 0.0) -> None:
        """`status`: of HTTP, 0 without one; how long the server asks to be left alone."""
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s
