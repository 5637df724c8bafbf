"""Clients that ask too much, come without a key, go away, dawdle, or talk nonsense."""

import contextlib
import json
import random
import socket
import time

import openai
import processes
import pytest
import servers
from servers import request, rest

ENDLESS = {"prompt": "a", "max_tokens": 1_000_000, "stream": True}
TALKATIVE = {"logprobs": 20, "cells": ["0:0"] * 64}  # about a kilobyte for each byte
KEYS = "  first-key\n\nsecond_KEY!\n"
WAITING = 5


@pytest.fixture(scope="module")
def server(trained, environment, tmp_path_factory):
    """A server for few, that knows its clients by their keys, and does not wait long for them."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "keys").write_text(KEYS)
    flags = f"--api_key_file={folder / 'keys'}", "--max_batch=4", f"--max_waiting={WAITING}"
    environment = environment | processes.CHEAP
    flags = *flags, "--max_prompt_bytes=20000"
    log = folder / "log"
    with servers.serving(environment, trained, *flags, log=log, code=servers.HURRIED) as running:
        running.http.headers["Authorization"] = "Bearer second_KEY!"
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(server):
    """Whatever a client does, in the end all places are free and texts are made as before."""
    yield
    server.hang_up()
    server.until(lambda: server.active() == (0, 0))
    assert len(server.text(prompt="abc", max_tokens=5)) == 5


def asked(**values):
    """A request, with a key."""
    head, body = request(ENDLESS | values).split(b"\r\n\r\n", 1)
    return head + b"\r\nAuthorization: Bearer first-key\r\n\r\n" + body


def begin(server, **values):
    """A connection on which a request was sent."""
    connection = server.connect()
    connection.sendall(asked(**values))
    return connection


def test_a_key_is_needed_where_there_are_keys(server):
    for key in ("first-key", "second_KEY!"):
        with servers.openai_client(server, key) as client:
            assert [model.id for model in client.models.list().data] == ["run"]
            assert client.completions.create(model="run", prompt="a", max_tokens=3).choices
    for key in ("first-ke", "first-key2", "x", "FIRST-KEY"):
        with servers.openai_client(server, key) as client:
            with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer KEY"):
                client.models.list()
            with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer KEY"):
                client.completions.create(model="run", **ENDLESS)
    for value in (b"", b"Bearer", b"Basic first-key", b"first-key", "Bearer clé".encode(), b"\xff"):
        for path in ("/v1/models", "/v1/models/run", "/tokenizer_info"):
            answer = server.http.get(path, headers={b"Authorization": value})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
    assert server.http.get("/v1/models", headers={"Authorization": "bearer  first-key"}).is_success
    assert server.metrics()["charlstm_requests_total", "401"] == 4
    for path in ("/", "/health", "/ready", "/metrics"):  # these are for everybody
        assert server.http.get(path, headers={"Authorization": ""}).status_code == 200


def test_more_texts_than_may_wait_are_refused(server):
    taken = [begin(server) for _ in range(4)]
    server.until(lambda: server.active() == (4, 0))
    waiting = [begin(server, n=WAITING - 1)]
    server.until(lambda: server.active() == (4, WAITING - 1))
    with servers.openai_client(server, "first-key") as client:
        with pytest.raises(openai.RateLimitError, match="4 texts are waiting already") as caught:
            client.completions.create(model="run", prompt="a", n=2)
        assert caught.value.code == "too_many_waiting"
        assert caught.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.BadRequestError, match="more texts than this server lets wait"):
            client.completions.create(model="run", prompt="a", n=WAITING + 1)
        with pytest.raises(
            openai.BadRequestError, match="this server reads up to 20,000"
        ) as caught:
            client.completions.create(model="run", prompt="a" * 20_001)
        assert caught.value.code == "context_length_exceeded"
    for connection in (*taken, *waiting):
        connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_places(server, stream):
    many = begin(server, stream=stream, n=4)
    server.until(lambda: server.active() == (4, 0))
    waiting = begin(server, stream=stream)
    server.until(lambda: server.active() == (4, 1))
    waiting.close()  # while it waits
    server.until(lambda: server.active() == (4, 0))
    if stream:
        assert many.recv(100).startswith(b"HTTP/1.1 200")
    before = server.metrics()["charlstm_requests_total", "499"]
    many.close()
    server.until(lambda: server.active() == (0, 0))
    server.until(lambda: server.metrics()["charlstm_requests_total", "499"] == before + 1)


def test_a_client_that_resets_its_connection_or_sends_half_a_request_does_no_harm(server):
    for count in (1, 10, 60, len(asked()) - 1):
        connection = server.connect()
        connection.sendall(asked()[:count])
        connection.close()
    connection = begin(server)
    server.until(lambda: server.active() == (1, 0))
    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()  # with a reset


def test_a_body_that_is_too_large_is_refused_before_it_was_sent(server):
    head = asked().split(b"\r\n\r\n")[0].replace(b"Content-Length: ", b"Content-Length: 9999")
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 413 ")
    # And one that does not say how long it is.
    large = {"prompt": "a" * 200_000}
    answer = server.http.post("/v1/completions", content=iter([json.dumps(large).encode()]))
    assert answer.status_code == 413 and "185,536 bytes" in answer.json()["error"]["message"]
    # One that is sent in spite of it all is read to its end, and the connection goes on.
    answers = [server.http.post("/v1/completions", json=large) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [413, 413]


def test_a_request_that_comes_too_slowly_is_not_waited_for(server):
    connections = [server.connect() for _ in range(4)]
    nothing, half_a_head, half_a_body, after_another = connections
    half_a_head.sendall(asked()[:30])
    half_a_body.sendall(asked()[:-10])
    after_another.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\n\r\nGET /hea")
    begin = time.monotonic()
    assert rest(nothing) == b"" and rest(half_a_head) == b""
    said = rest(half_a_body)
    assert said.startswith(b"HTTP/1.1 408 ") and b"came too slowly" in said
    assert rest(after_another).count(b"HTTP/1.1 200 OK") == 1
    assert 0.9 < time.monotonic() - begin < 20
    # As long as bytes come, a body may take longer.
    large = asked(prompt="a" * 19_000, max_tokens=1, stream=False)
    with server.connect() as connection:
        for begin in range(0, len(large), 5000):
            connection.sendall(large[begin : begin + 5000])
            time.sleep(0.3)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")


def made(server):
    return server.metrics()["charlstm_bytes_made_total", "run"]


def test_a_client_that_does_not_read_costs_little_and_holds_nobody_up(server):
    """Its text waits, outside of the batch; the connection of one that never reads is cut."""
    before = made(server)
    silent = [begin(server, **TALKATIVE) for _ in range(2)]
    server.until(lambda: server.active() == (2, 0))

    def is_still():
        before = made(server)
        time.sleep(0.3)
        return made(server) == before and server.active() == (0, 2)

    server.until(is_still)
    # No more is made than a few MB on their way can hold, of a gigabyte that was asked for.
    far = made(server)
    assert far - before < 2 * 40_000
    assert len(server.text(prompt="quick", max_tokens=200)) == 200
    time.sleep(0.2)
    assert made(server) == far + 200
    server.until(lambda: server.active() == (0, 0))
    for connection in silent:
        connection.settimeout(10)
        assert b"[DONE]" not in rest(connection)


def test_a_client_that_reads_slowly_gets_all_of_its_text(server):
    wanted = server.text(prompt="slow", max_tokens=40_000, seed=1)
    received = bytearray()
    with begin(server, prompt="slow", max_tokens=40_000, seed=1, **TALKATIVE) as connection:
        server.until(lambda: server.active() == (0, 1))  # what is unread holds its text up
        while b"[DONE]" not in received[-200:]:
            received += connection.recv(2**16)
            if len(received) < 2**22:
                time.sleep(0.01)
    events = [line[6:] for line in received.splitlines() if line.startswith(b"data: {")]
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events) == wanted


def test_nonsense_is_answered_with_an_error_or_not_at_all(server):
    draws = random.Random(0)
    good = asked()
    for number in range(60):
        data = bytearray(draws.randbytes(draws.randrange(1, 300)))
        if number % 3 == 1:
            data = bytearray(good)
            for _ in range(draws.randrange(1, 9)):
                data[draws.randrange(len(data))] = draws.randrange(256)
        elif number % 3 == 2:
            data = b"POST /v1/completions HTTP/1.1\r\n" + data
        with server.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            said = rest(connection)
            assert not said or said.split()[1][:1] in (b"2", b"4"), (bytes(data), said)
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
        assert rest(connection).startswith((b"HTTP/1.1 4", b""))
    with server.connect() as connection:
        connection.sendall(b"EHLO mail.example.org\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 400 ")
    for body in (b"", b"{", b"\x00" * 1000, b"[" * 50_000, b'{"prompt": NaN}', b'{"n": 1e400}'):
        answer = server.http.post("/v1/completions", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_requests_in_one_packet_are_answered_in_turn(server):
    one = asked(max_tokens=4, stream=False)
    with server.connect() as connection:
        connection.sendall(
            one * 3 + one.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n")
        )
        assert rest(connection).count(b'"finish_reason": "length"') == 4
