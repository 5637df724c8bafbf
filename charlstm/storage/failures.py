"""Failures of object stores: those worth another try, and one line for the others."""

import errno
import re
from typing import Any

from charlstm.errors import UserError, in_one_line
from charlstm.storage.schemes import SCHEMES

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
_AWAY_CODES = {408, 409, 425, 429, 500, 502, 503, 504}
_NO_CREDENTIALS = re.compile("credentials|anonymous caller", re.IGNORECASE)
# Of S3: the key is not known, or not valid any more.
_BAD_KEYS = {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}


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
        return bool(getattr(error, "retryable", type(error).__name__ == "TransportError"))
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
    elif _lacks_credentials(error):
        said = f"{address} takes no request without credentials ({reason})"
        cure = SCHEMES[scheme].log_in
    elif isinstance(error, PermissionError) or _code(error) == 403:
        said = f"{place}: access is denied ({reason})"
        cure = "get the right to read and write objects of the bucket, or name another"
    else:
        said, cure = f"{place}: {reason}", "check the address and the bucket"
    return StoreError(f"{said}: {cure}", reason)


def _lacks_credentials(error: BaseException) -> bool:
    if _code(error) == 401 or _answer(error).get("Error", {}).get("Code") in _BAD_KEYS:
        return True
    is_of_library = type(error).__module__.partition(".")[0] in ("google", "botocore")
    return is_of_library and bool(_NO_CREDENTIALS.search(f"{type(error).__name__} {error}"))


def _code(error: BaseException) -> int | None:
    """Returns the HTTP status of an error; None if it has none."""
    status = _answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    for value in (status, getattr(error, "code", None), getattr(error, "status", None)):
        if str(value).isdecimal():
            return int(str(value))
    return 403 if str(error).startswith("Forbidden") else None


def _answer(error: BaseException) -> dict[str, Any]:
    """Returns what the server of S3 has answered; empty if it did not, or for other stores."""
    for found in (error, error.__cause__):
        response = getattr(found, "response", None)
        if isinstance(response, dict):
            return response
    return {}
