"""Failures of object stores: those worth another try, and one line for the others."""

import errno
import re
from collections.abc import Mapping

from charlstm.errors import UserError, in_one_line

# OSErrors that say that the network or the store is away for now.
_AWAY = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ETIMEDOUT,
    getattr(errno, "EREMOTEIO", errno.EIO),
}
# HTTP: too early or too much for now, or the server's own fault.
_AWAY_CODES = {408, 409, 425, 429, *range(500, 600)}
_NO_CREDENTIALS = re.compile("credential|anonymous caller|unauthorized|401", re.IGNORECASE)
_FORBIDDEN = re.compile("forbidden|403|access ?denied", re.IGNORECASE)


class StoreError(UserError):
    """Reports what an object store refused, or that it cannot be reached.

    Attributes:
      reason: why, in a few words.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def is_transient(error: BaseException) -> bool:
    """Returns True if what failed may succeed when it is tried again.

    The libraries of the stores raise errors of many kinds; an HTTP status, an error number or the
    class tells.
    """
    code = _code(error)
    if code is not None:
        return code in _AWAY_CODES
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError):
        return False
    module = type(error).__module__.partition(".")[0]
    if module in ("aiohttp", "requests", "urllib3"):
        return True
    if module == "botocore":
        return "Credentials" not in type(error).__name__
    if module == "google":
        return type(error).__name__ in ("TransportError", "RefreshError")
    return isinstance(error, OSError) and error.errno in _AWAY


def failure(error: BaseException, address: str, name: str = "") -> StoreError:
    """Returns the one line for an error that no other try would mend.

    Args:
      error: as the library of the store raised it.
      address: of the folder.
      name: of the object in it.
    """
    place = f"{address}/{name}" if name else address
    reason = in_one_line(error, 160) or type(error).__name__
    scheme = address.partition(":")[0]
    if is_transient(error):
        said = f"{address} cannot be reached ({reason})"
        cure = "check the network, and give the same command again"
    elif isinstance(error, FileNotFoundError):
        bucket = address.split("://")[1].split("/")[0]
        said = f"{place} is not there"
        cure = f"check the name, and that the bucket {bucket} exists"
    elif _code(error) == 401 or _NO_CREDENTIALS.search(f"{type(error).__name__} {reason}"):
        said, cure = f"{address} takes no request without credentials ({reason})", _LOG_IN[scheme]
    elif isinstance(error, PermissionError) or _FORBIDDEN.search(reason):
        said = f"{place}: access is denied ({reason})"
        cure = "get the right to read and write objects of the bucket, or name another"
    else:
        said, cure = f"{place}: {reason}", "check the address and the bucket"
    return StoreError(f"{said}: {cure}", reason)


_GOOGLE = "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
_AMAZON = "aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_LOG_IN: Mapping[str, str] = {
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "s3": _AMAZON,
    "s3a": _AMAZON,
    "http": "get the right to read it",
    "https": "get the right to read it",
}


def _code(error: BaseException) -> int | None:
    """Returns the HTTP status of an error; None if it has none."""
    for name in ("code", "status"):
        value = getattr(error, name, None)
        if str(value).isdecimal():
            return int(str(value))
    return 403 if str(error).startswith("Forbidden") else None
