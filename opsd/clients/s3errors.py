"""What an S3 server's refusal means, and what a person can do about it.

Servers share the codes of AWS and little else: a code that is not known here is temporary
when the server calls it its own fault (5xx), and permanent otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.secrets import redact

_SEE_POLICY = "give the key the rights of docs/repositories.md"
_NO_WORDS = "not the answer of an S3 server: check endpoint, and any proxy before it"
_REMEDY = {
    "AccessDenied": _SEE_POLICY,
    "AllAccessDisabled": _SEE_POLICY,
    "403": _SEE_POLICY,
    "SignatureDoesNotMatch": "the secret key does not belong to the access key: check both",
    "InvalidAccessKeyId": "the server does not know this access key: check access_key",
    "ExpiredToken": "the credentials have expired: make new ones",
    "InvalidToken": "the credentials are not valid here: check them and the endpoint",
    "NoSuchBucket": "create the bucket, or correct bucket",
    "PermanentRedirect": "the bucket lies in another region: set region and endpoint",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: set region",
    "IllegalLocationConstraintException": "the bucket lies in another region: set region",
    "RequestTimeTooSkewed": "this machine's clock and the server's differ: set the clock",
    "RequestExpired": "this machine's clock and the server's differ: set the clock",
    "InvalidObjectState": "the object is archived: restore it first, or change storage_class",
    "InvalidStorageClass": "correct storage_class",
    "QuotaExceeded": "raise the quota, or keep fewer backups",
    "XMinioStorageFull": "free space on the server, or keep fewer backups",
    "SlowDown": "the server asks for fewer requests; try later",
}
_TEMPORARY = frozenset(
    {
        *("RequestTimeTooSkewed", "RequestExpired", "SlowDown", "RequestTimeout"),
        *("RequestTimeoutException", "InternalError", "ServiceUnavailable", "Throttling"),
        *("ThrottlingException", "TooManyRequestsException", "OperationAborted"),
        *("ConditionalRequestConflict", "BadDigest", "XAmzContentSHA256Mismatch"),
    }
)
_MISSING = frozenset({"NoSuchKey", "NoSuchUpload", "404", "NotFound"})
_TAKEN = frozenset({"PreconditionFailed", "412"})
_UNKNOWN_TO_SERVER = frozenset({"NotImplemented", "501"})
_SERVER_ERROR = 500


class NoSuchObject(PermanentError):
    """No object, or no upload, under this key."""


class Taken(PermanentError):
    """The key has an object already, which was not touched."""


class NotImplementedByServer(PermanentError):
    """The server does not know this request."""


def server_error(where: str, response: Mapping[str, Any]) -> OpsdError:
    """The error for a refusal.

    Args:
        where: repository and action, e.g. ``repository offsite: write KEY``.
        response: as the library parsed it.
    """
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    words = redact(" ".join(str(error.get("Message", "")).split()))
    remedy = _REMEDY.get(code) or (_NO_WORDS if code.isdigit() else "")
    text = f"{where}: {status} {code}: {words}" + (f"; {remedy}" if remedy else "")
    if code in _MISSING:
        return NoSuchObject(text)
    if code in _TAKEN:
        return Taken(text)
    if code in _UNKNOWN_TO_SERVER:
        return NotImplementedByServer(text)
    temporary = code in _TEMPORARY or (status >= _SERVER_ERROR and code not in _REMEDY)
    return TransientError(text) if temporary else PermanentError(text)
