"""Kinds of addresses by their schemes, such as gs://, and what differs between them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scheme:
    """Describes a kind of addresses.

    Attributes:
      extra: of charlstm, with which such addresses can be read.
      log_in: how to get credentials.
      is_store: True for object stores, which list folders and can hold runs.
    """

    extra: str
    log_in: str
    is_store: bool


GOOGLE = Scheme(
    "gcs", "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS", True
)
_AMAZON = Scheme("s3", "aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", True)
_WEB = Scheme("gcs", "get the right to read it", False)

SCHEMES = {
    **dict.fromkeys(("gs", "gcs"), GOOGLE),
    **dict.fromkeys(("s3", "s3a"), _AMAZON),
    **dict.fromkeys(("http", "https"), _WEB),
}
