"""Texts in object stores and on web servers, read once on each machine."""

import functools
import glob
import gzip
import http.server
import os
import re
import threading

import pytest
from object_stores import BUCKET
from processes import SMALL

from charlstm.data import objects
from charlstm.data.corpora import open_corpus
from charlstm.errors import UserError

PARTS = {f"part{number}.txt": bytes([65 + number]) * 3000 + b"\n" for number in range(10)}

# fsspec's file systems close their connections when Python ends.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "charlstm"


@pytest.fixture
def server(request, monkeypatch):
    """A server with ten objects, and one more in a folder."""
    server = request.getfixturevalue(request.param)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    for name, content in PARTS.items():
        server.put(f"texts/{name}", content)
    server.put("texts/more/z.txt.gz", gzip.compress(b"zz\n"))
    return server


both = pytest.mark.parametrize("server", ["gcs", "s3"], indirect=True)


@both
def test_a_glob_of_objects_is_one_text(server, cache):
    text = b"".join(PARTS.values())
    left = cache / "objects" / "left"  # by a fetch that was given up long ago
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    source = open_corpus(f"{server.scheme}://{BUCKET}/texts/part*.txt")
    assert source.data.tobytes() == text
    assert source.path == f"{server.scheme}://{BUCKET}/texts/part*.txt"
    assert not [path for path in (cache / "objects").iterdir() if path.is_dir()]  # left neither
    folder = open_corpus(f"{server.scheme}://{BUCKET}/texts")
    assert folder.data.tobytes() == b"zz\n" + text  # in order of paths, unpacked
    one = open_corpus(f"{server.scheme}://{BUCKET}/texts/part3.txt")
    assert one.data.tobytes() == PARTS["part3.txt"]


@both
def test_objects_train_a_model(server, charlstm, environment, tmp_path):
    flags = f"--corpus={server.scheme}://{BUCKET}/texts/part*.txt", f"--workdir={tmp_path}", *SMALL
    done = charlstm("train", *flags, env=environment | server.environment())
    assert done.returncode == 0, done.stderr
    assert "fetching 10 object(s), 30,010 bytes, from" in done.stderr
    again = charlstm("evaluate", f"--checkpoint={tmp_path}", env=environment | server.environment())
    assert again.returncode == 0 and "fetching" not in again.stderr


def test_a_fetch_that_was_cut_off_goes_on_where_it_ended(proxy, cache, monkeypatch):
    """What has come is kept; a text that has changed meanwhile is fetched anew."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.target.url)
    monkeypatch.setattr(objects, "PIECE_BYTES", 1000)
    proxy.target.put("texts/long.txt", bytes(range(100)) * 100)
    address = f"gs://{BUCKET}/texts/long.txt"
    proxy.faults = {("GET", "download"): [403, 10**6, 5]}  # after five pieces
    with pytest.raises(UserError, match="access is denied"):
        open_corpus(address)
    proxy.faults = {}
    before = len(proxy.requests)
    assert open_corpus(address).data.tobytes() == bytes(range(100)) * 100
    pieces = [path for method, path in proxy.requests[before:] if "download" in path]
    assert len(pieces) == 5
    before = len(proxy.requests)
    open_corpus(address)
    assert not [path for _, path in proxy.requests[before:] if "download" in path]
    proxy.target.put("texts/long.txt", b"another")
    assert open_corpus(address).data.tobytes() == b"another"


def test_a_file_of_a_web_server(cache, tmp_path):
    """This server knows no ranges of bytes."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "book.txt").write_bytes(b"a book\n" * 1000)
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "web"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        assert open_corpus(f"{base}/book.txt").data.tobytes() == b"a book\n" * 1000
        with pytest.raises(UserError, match=f"{base}/none.txt cannot be had: check it"):
            open_corpus(f"{base}/none.txt")
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@both
def test_objects_that_are_not_there_are_one_line(server, cache):
    with pytest.raises(UserError, match=r"no object matches .*/texts/q"):
        open_corpus(f"{server.scheme}://{BUCKET}/texts/q*")
    with pytest.raises(UserError, match="the bucket nobody exists"):
        open_corpus(f"{server.scheme}://nobody/x.txt")
    with pytest.raises(UserError, match="no text is read from a ftp:// address: give one of gs://"):
        open_corpus("ftp://host/x.txt")


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("part*.txt", ["part1.txt", "part.txt"], ["a/part1.txt", "part1.txt.gz"]),
        ("**/*.c", ["a.c", "x/a.c", "x/y/a.c"], ["a.cc", "x/a.h"]),
        ("x/**", ["x/a", "x/y/a"], ["y/a"]),
        ("p[0-4].t?t", ["p3.txt"], ["p5.txt", "p3.tt"]),
        ("[!a]*", ["b", "bc"], ["ab", "x/c"]),
    ],
)
def test_patterns_mean_what_they_mean_for_files(pattern, matching, others, tmp_path):
    """Checked against the standard library's glob on real files."""
    for name in [*matching, *others]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    regex = re.compile(objects.glob_regex(pattern))
    assert sorted(filter(regex.fullmatch, [*matching, *others])) == sorted(matching)
    found = glob.glob(pattern, root_dir=tmp_path, recursive=True)
    assert sorted(name for name in found if (tmp_path / name).is_file()) == sorted(matching)
