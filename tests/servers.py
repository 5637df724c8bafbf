"""charlstm's server as a process of its own, and clients of all kinds, for tests."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

# Shorter waits than a server's own: the same code with other constants.
HURRIED = """
from charlstm.serving import app, connections, sockets
app.BODY_SECONDS = connections.REQUEST_SECONDS = 1.0
sockets.STALL_SECONDS = 5.0
"""


class Server:
    """A process that serves.

    Attributes:
      process: of the server.
      url: with a slash at its end.
      log: of what it wrote to standard error.
    """

    def __init__(self, environment, arguments, log, code=""):
        command = [sys.executable, "-m", "charlstm"]
        if code:
            run = "import runpy; runpy.run_module('charlstm', run_name='__main__', alter_sys=True)"
            command = [sys.executable, "-c", f"{code}\n{run}"]
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "serve", *map(str, arguments)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.url = None
        self._connections = []

    def wait(self):
        """Waits until it serves."""
        line = self.process.stdout.readline()
        assert line.startswith("serving at "), self.log.read_text()
        self.url = line.removeprefix("serving at ").strip()
        self.http = httpx.Client(base_url=self.url, timeout=120)
        return self

    @property
    def address(self):
        """Host and port."""
        url = httpx.URL(self.url)
        return url.host, url.port

    def complete(self, **values):
        """The answer to a request for a completion."""
        return self.http.post("/v1/completions", json=values)

    def text(self, **values):
        """The text of a completion."""
        answer = self.complete(**values)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]

    def metrics(self):
        """The metrics, by name and labels."""
        answer = self.http.get("/metrics")
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def active(self):
        """How many texts have a place, and how many wait."""
        found = self.metrics()
        kinds = ("charlstm_active", "charlstm_waiting")
        return tuple(sum(v for name, v in found.items() if name[0] == kind) for kind in kinds)

    def until(self, condition, seconds=60):
        """Waits for a condition while the process lives."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def connect(self):
        """A connection without manners; little waits in it unread, whatever the kernel allows."""
        family, *_, address = socket.getaddrinfo(*self.address, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        found.settimeout(60)
        self._connections.append(found)
        try:
            found.connect(address)
        except OSError:
            self._connections.pop().close()
            raise
        return found

    def hang_up(self):
        """Closes all such connections."""
        while self._connections:
            self._connections.pop().close()

    def begin(self, **values):
        """A connection on which a request was sent, and nothing is read."""
        connection = self.connect()
        connection.sendall(request(values))
        return connection

    def end(self, number=signal.SIGTERM):
        """Asks it to end; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def request(values, path="/v1/completions"):
    """A request in HTTP, bytes."""
    body = json.dumps(values).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def openai_client(server, key="none", max_retries=0):
    """OpenAI's own client, which talks to a server."""
    return openai.OpenAI(base_url=f"{server.url}v1", api_key=key, max_retries=max_retries)


def answer(connection):
    """The answer that comes on a connection: its status, its headers and its body."""
    with http.client.HTTPResponse(connection) as found:
        found.begin()
        return found.status, found.headers, found.read()


def rest(connection):
    """All that comes from a connection until its other end is closed or reset."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(2**16):
            found += part
    return found


@contextlib.contextmanager
def serving(environment, *arguments, log, code="", port=0):
    """Serves while the context lasts."""
    server = Server(environment, [*arguments, f"--port={port}"], log, code)
    try:
        yield server.wait()
    finally:
        server.hang_up()
        if server.url:
            server.http.close()
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()
