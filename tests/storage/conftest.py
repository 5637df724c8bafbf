"""What the tests of object stores share."""

import pytest
from object_stores import BUCKET, S3, Gcs, Proxy


@pytest.fixture(scope="session")
def gcs():
    """A server of the protocol of Google Cloud Storage, with one bucket, in memory."""
    server = Gcs()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A server of the protocol of S3, with one bucket."""
    server = S3(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.stop()


@pytest.fixture
def proxy():
    """A proxy before a server of its own; `proxy.target` is the server."""
    proxy = Proxy()
    proxy.target = Gcs(port=proxy.port)
    yield proxy
    proxy.target.stop()
    proxy.stop()


@pytest.fixture
def folder(request):
    """The name of a folder that no other test writes to."""
    return f"runs/{request.node.name.replace('[', '-').replace(']', '')}"


@pytest.fixture
def address(folder):
    return f"gs://{BUCKET}/{folder}"
