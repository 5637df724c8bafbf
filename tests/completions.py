"""A server on the loopback that answers as `charlstm serve` does, with text that is known before.

It knows nothing of models: what follows a prompt, how surprising each byte is and what the cells do
are functions of the places in the text, so that a test can say what a page must show.
"""

import contextlib
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREEDY = b"the likeliest text, always the same; "
DRAWN = b"a drawn text that depends on its seed, "


def next_byte(place, temperature, seed):
    """The byte that is written at a place of the text."""
    if temperature == 0:
        return GREEDY[place % len(GREEDY)]
    return DRAWN[(place + seed) % len(DRAWN)]


def continuation(prompt, length, seed):
    """What the server writes after a prompt at a temperature above 0, as text."""
    return "".join(chr(DRAWN[(len(prompt) + i + seed) % len(DRAWN)]) for i in range(length))


def logprob(byte, place):
    """The logarithm of the probability of a byte at a place; none at the first."""
    return None if place == 0 else -((byte * 7 + place * 3) % 56) / 10


def cell_state(name, byte, place):
    """The state of a cell after a byte."""
    layer, cell = map(int, name.split(":"))
    return math.sin(place / (3 + cell % 7) + layer + byte / 40)


class Completions:
    """The server. Its attributes may be changed while it runs.

    Attributes:
      page: what it has at its root, HTML.
      models: of `v1/models`.
      requests: the bodies of the completions that were asked for.
      seen: method and path of all requests.
      key: which it asks for, or None.
      pause: seconds before each event.
      per_event: bytes in an event.
      failure: (status, message) of completions, or (None, message) for one within the stream.
      breaks_after: bytes after which it hangs up, or None.
    """

    def __init__(self, page):
        self.page = page
        self.models = [describe("the-model")]
        self.requests, self.seen = [], []
        self.key = self.failure = self.breaks_after = None
        self.pause, self.per_event = 0.0, 5

    def events(self, asked):
        """Yields the events of a stream."""
        text = bytearray(asked["prompt"])
        first = 0 if asked.get("echo") else len(text)
        total = len(text) + asked["max_tokens"]
        for place in range(len(text), total):
            text.append(next_byte(place, asked["temperature"], asked.get("seed", 0)))
        for start in range(first, total, self.per_event):
            places = range(start, min(start + self.per_event, total))
            found = {
                "tokens": [chr(text[place]) for place in places],
                "token_logprobs": [logprob(text[place], place) for place in places],
                "top_logprobs": [None for _ in places],
                "text_offset": list(places),
                "bytes": [text[place] for place in places],
                "cells": [
                    [cell_state(name, text[place], place) for name in asked["cells"]]
                    for place in places
                ],
            }
            yield {
                "choices": [
                    {
                        "text": "".join(found["tokens"]),
                        "index": 0,
                        "finish_reason": "length" if places.stop == total else None,
                        "logprobs": found,
                    }
                ]
            }


def describe(name, alphabet=range(256), num_layers=2, hidden_size=32, bits_per_byte=1.946):
    """A model as `v1/models` describes it."""
    return {
        "id": name,
        "object": "model",
        "created": 1,
        "owned_by": "charlstm",
        "charlstm": {
            "num_layers": num_layers,
            "hidden_size": hidden_size,
            "alphabet": list(alphabet),
            "num_parameters": 3349582,
            "bits_per_byte": bits_per_byte,
            "reset_every": 0,
        },
    }


@contextlib.contextmanager
def serving(page):
    """Runs a server while the context is open: the `Completions`, with its address as `url`."""
    completions = Completions(page)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(completions))
    completions.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield completions
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(completions):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            completions.seen.append(("GET", self.path))
            if self.path == "/":
                self.answer(200, "text/html; charset=utf-8", completions.page.encode())
            elif self.path == "/v1/models" and self.may():
                listed = {"object": "list", "data": completions.models}
                self.answer(200, "application/json", json.dumps(listed).encode())
            elif self.path != "/v1/models":
                self.refuse(404, f"nothing at {self.path}")

        def do_POST(self):
            completions.seen.append(("POST", self.path))
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            completions.requests.append(asked)
            if not self.may():
                return
            status, message = completions.failure or (None, None)
            if status:
                self.refuse(status, message)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.end_headers()
            sent = 0
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for event in completions.events(asked):
                    time.sleep(completions.pause)
                    if completions.breaks_after is not None and sent >= completions.breaks_after:
                        return
                    if message is not None and sent:
                        self.wfile.write(f"data: {json.dumps(error(message))}\n\n".encode())
                        return
                    self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                    sent += len(event["choices"][0]["logprobs"]["bytes"])
                self.wfile.write(b"data: [DONE]\n\n")

        def may(self):
            given = self.headers.get("Authorization")
            if completions.key is None or given == f"Bearer {completions.key}":
                return True
            words = "the key is wrong" if given else "this server asks for a key"
            self.refuse(401, words)
            return False

        def refuse(self, status, message):
            self.answer(status, "application/json", json.dumps(error(message)).encode())

        def answer(self, status, kind, body):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def error(message):
    """An error as OpenAI's servers report it."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}
