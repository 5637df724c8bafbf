"""Requests to a store: tried again when that may help, and one line when it does not."""

import os
import subprocess
import sys
import threading
import time

import pytest
from object_stores import BUCKET, Proxy

from charlstm.errors import UserError
from charlstm.storage.failures import StoreError
from charlstm.storage.lease import Lease
from charlstm.storage.store import Store

# fsspec's file systems close their connections when Python ends.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def store(proxy, monkeypatch):
    """The store behind the proxy."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.target.url)
    return Store(f"gs://{BUCKET}/runs/mine")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(proxy, store, status, tmp_path):
    (tmp_path / "here").write_bytes(b"one")
    proxy.faults = {("*", "/"): [status, 2, 0]}
    store.upload({"there": tmp_path / "here"})
    proxy.faults = {("*", "/"): [status, 2, 0]}
    store.download({"there": tmp_path / "again"})
    assert proxy.faults[("*", "/")][1] == 0
    assert (tmp_path / "again").read_bytes() == b"one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "here"]


def test_what_may_pass_is_tried_again_with_s3(s3, monkeypatch):
    """s3fs has no error of its own for most of these answers."""
    proxy = Proxy()
    proxy.target = s3
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    s3.put("runs/mine/there", b"one")
    store = Store(f"s3://{BUCKET}/runs/mine")
    store.patience = 60  # botocore alone may take ten seconds for its tries
    proxy.faults = {("GET", "there"): [502, 6, 0]}  # more than botocore's own tries
    assert store.read("there") == b"one"
    proxy.faults = {("GET", "there"): [403, 10**6, 0]}
    with pytest.raises(StoreError, match="access is denied"):
        store.read("there")
    proxy.stop()


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "takes no request without credentials .*: gcloud auth application-default login"),
        (403, "access is denied .*: get the right to read and write objects of the bucket"),
        (404, f"is not there: check the name, and that the bucket {BUCKET} exists"),
    ],
)
def test_what_no_try_would_mend_is_said_at_once(proxy, store, status, says):
    proxy.faults = {("POST", "/"): [status, 10**6, 0]}
    began = time.monotonic()
    with pytest.raises(StoreError, match=f"gs://{BUCKET}/runs/mine.*{says}"):
        store.write("there", b"one")
    assert time.monotonic() - began < store.patience / 2


def test_a_store_that_stays_away_is_said_after_a_while(proxy, store):
    store.patience = 1.5
    proxy.faults = {("*", "/"): [503, 10**6, 0]}
    with pytest.raises(StoreError, match=r"cannot be reached \(.*503\): check the network"):
        store.find()
    assert len(proxy.requests) > 2


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_an_object_is_created_once_also_if_the_answer_is_lost(scheme, request, monkeypatch):
    server = request.getfixturevalue("gcs" if scheme == "gs" else "s3")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    store = Store(f"{scheme}://{BUCKET}/created")
    assert store.create(".lock.1", b"ours")
    assert store.create(".lock.1", b"ours")  # as if the first answer had not come
    assert not store.create(".lock.1", b"theirs")
    assert store.read(".lock.1") == b"ours"


def test_of_many_who_take_a_lease_one_gets_it(proxy, store, monkeypatch):
    """The holder before them is silent, and on another machine."""
    monkeypatch.setattr("charlstm.storage.lease.SECONDS_UNTIL_DEAD", 1.5)
    monkeypatch.setattr("charlstm.storage.lease.SECONDS_BETWEEN_RENEWALS", 0.3)
    monkeypatch.setattr("charlstm.storage.lease.SECONDS_UNTIL_FREE", 3.0)
    assert store.create(".lock.7", b"{}")
    leases = [Lease(store) for _ in range(6)]
    got, refused = [], []

    def take(lease):
        try:
            lease.take()
            got.append(lease)
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take, args=[lease]) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and len(refused) == 5
    assert f"(process {os.getpid()} on " in refused[0]
    assert [name for name in store.find() if name.startswith(".lock")] == [".lock.8"]
    got[0].require_held()
    store.create(".lock.9", b"{}")  # another that has taken it for dead
    with pytest.raises(UserError, match="another run has taken over"):
        got[0].require_held()
    store.delete([".lock.9"])  # and has ended: what it left is not to be written over
    with pytest.raises(UserError, match="another run has taken over"):
        got[0].require_held()
    got[0].release()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("gs://bucket", "gs://bucket is a whole bucket: name a folder in it, gs://bucket/runs/"),
        ("gs://bucket/runs/a#1", "the address of a run has no #, ?, *, [, ] or ::"),
        ("gs://bucket/runs/..", "and no part . or ..: choose another name"),
        ("ftp://host/run", "no run can be at a ftp:// address: give gs://BUCKET/FOLDER"),
    ],
)
def test_an_address_where_no_run_can_be_is_refused(charlstm, text_file, address, says):
    done = charlstm("train", f"--corpus={text_file}", f"--workdir={address}")
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


def test_a_run_that_may_not_write_ends_in_one_line(
    charlstm, environment, text_file, proxy, folder, address
):
    proxy.faults = {("POST", "/upload"): [403, 10**6, 0]}
    online = environment | proxy.target.environment()
    done = charlstm("train", f"--corpus={text_file}", f"--workdir={address}", env=online)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"charlstm: {address}/.lock.1: access is denied (Forbidden")
    assert proxy.target.names(folder) == []


def test_without_the_extra_a_line_says_what_to_install(charlstm, environment, tmp_path):
    (tmp_path / "gcsfs.py").write_text("raise ImportError('no gcsfs')")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = charlstm(
        "sample", "--checkpoint=gs://bucket/run", env=environment | {"PYTHONPATH": paths}
    )
    assert done.returncode == 2
    assert done.stderr == (
        "charlstm: gs://bucket/run needs an extra: pip install 'charlstm[gcs]'\n"
    )


def test_a_run_on_a_disk_loads_nothing_of_stores(trained):
    """Reading a model and writing a run import no library of a store, and no copy is made."""
    code = (
        "import sys, charlstm\n"
        f"charlstm.load({str(trained)!r})\n"
        "import charlstm.training.trainer, charlstm.data.corpora, charlstm.report.runs\n"
        "names = 'gcsfs', 's3fs', 'aiohttp', 'botocore', 'google.auth'\n"
        "ours = 'charlstm.storage.store', 'charlstm.storage.copies'\n"
        "print([name for name in (*names, *ours) if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
