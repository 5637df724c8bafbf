"""The process: how it starts and ends, what it says, and the checkpoints that it takes."""

import json
import shutil
import signal
import socket
import threading

import httpx
import openai
import processes
import pytest
from servers import Server, answer, openai_client, rest, serving

from charlstm.errors import UserError
from charlstm.serving import served
from charlstm.serving.served import Options

ENDLESS = {"prompt": "a", "max_tokens": 1_000_000}
# One text at a time takes the fewest programs; those that are compiled later are of no use here.
QUICK = ("--max_batch=1",)


@pytest.fixture
def quick(environment):
    """An environment in which little time goes into making programs fast."""
    return environment | processes.CHEAP


def asks_for_the_end(server):
    """Returns when the process notices signals, by what the system says of it."""

    def notices():
        with open(f"/proc/{server.process.pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        masks = [int(lines[name], 16) for name in ("SigBlk", "SigCgt")]
        return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)

    server.until(notices)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_at_once_and_well(quick, trained, tmp_path, number):
    server = Server(quick, [trained, "--port=0"], tmp_path / "log")
    asks_for_the_end(server)
    assert server.end(number) == 0
    assert server.log.read_text() == "charlstm: ended before anything was served\n"
    server.process.stdout.close()


def test_while_it_compiles_it_lives_but_is_not_ready(environment, trained, tmp_path, free_port):
    environment = environment | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    port = free_port()
    server = Server(environment, [trained, f"--port={port}"], tmp_path / "log")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

        def lives():
            try:
                return http.get("/health").text == "ok\n"
            except httpx.ConnectError:
                return False

        server.until(lives)
        assert (http.get("/ready").status_code, http.get("/ready").text) == (503, "not ready\n")
        early = http.post("/v1/completions", json={"prompt": "a"})
        assert early.status_code == 503 and "still starting" in early.json()["error"]["message"]
        assert early.headers["retry-after"] == "1"
        assert http.get("/v1/models").json()["data"][0]["id"] == "run"
    assert server.end() == 0
    assert server.process.stdout.read() == ""
    assert "ended before anything was served" in server.log.read_text()
    server.process.stdout.close()


def test_a_signal_lets_what_runs_finish_and_takes_no_more(quick, trained, tmp_path):
    """At an address of IPv6."""
    flags = *QUICK, "--host=::1"
    with serving(quick, trained, *flags, log=tmp_path / "log") as server:
        assert server.url.startswith("http://[::1]:") and server.http.get("/ready").is_success
        many = {"prompt": "a", "max_tokens": 60_000, "seed": 1}
        wanted = server.text(**many)
        stream = server.begin(**many, stream=True)
        idle, half_a_request = server.connect(), server.connect()
        half_a_request.sendall(b"POST /v1/completions HTTP/1.1\r\n")
        whole = []
        asking = threading.Thread(target=lambda: whole.append(server.text(**many)))
        asking.start()
        server.until(lambda: server.active() == (1, 1))
        server.process.send_signal(signal.SIGTERM)
        said = rest(stream)
        events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith(b"data: {")]
        assert "".join(event["choices"][0]["text"] for event in events) == wanted
        assert said.count(b"data: [DONE]") == 1
        asking.join()
        assert whole == [wanted]
        assert rest(idle) == rest(half_a_request) == b""
        assert server.process.wait(60) == 0
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        lines = server.log.read_text().splitlines()
        assert len(lines) == 2 and "ending: no request is taken any more" in lines[1]
        assert "2 x LSTM(16)" in lines[0] and str(trained) in lines[0]


def test_what_takes_too_long_is_given_up_with_its_reason(quick, trained, tmp_path):
    flags = *QUICK, "--max_seconds=1"
    with serving(quick, trained, *flags, log=tmp_path / "log") as server:
        made, waiting = (server.begin(**ENDLESS, stream=True) for _ in range(2))
        server.until(lambda: server.active() == (1, 1))
        said = "not finished within 1 seconds"
        with openai_client(server) as client:
            with pytest.raises(openai.RateLimitError, match=said) as caught:
                client.completions.create(model="run", **ENDLESS)
            assert caught.value.code == "took_too_long"
            # What had begun ends with an error; what had not is refused, unless it had a place for
            # the moment between the end of the first and its own.
            status, _, body = answer(made)
            assert status == 200 and body.count(b"took_too_long") == 1
            status, headers, body = answer(waiting)
            assert body.count(b"took_too_long") == 1
            assert status in (429, 200) and headers["retry-after"] is None
            before = server.metrics()["charlstm_requests_total", "429"]
            with (
                openai_client(server, max_retries=2) as patient,
                pytest.raises(openai.RateLimitError, match=said),
            ):
                patient.completions.create(model="run", **ENDLESS)
            assert server.metrics()["charlstm_requests_total", "429"] == before + 1
            with pytest.raises(openai.APIError, match=said):
                list(client.completions.create(model="run", **ENDLESS, stream=True))
        # Nor does one that does not read what it asked for keep the process from its end.
        silent = server.begin(**ENDLESS, stream=True, logprobs=20, cells=["0:0"] * 64)
        assert silent.recv(1) and server.end(signal.SIGINT) == 0


# As if the device had run out of memory in the middle of a text; and a mistake of our own.
FAILING = """
from charlstm.serving import protocol
from charlstm.serving.batches import Programs
parse = protocol.parse
def parse_wrongly(body, limits):
    if b"mistake" in body:
        raise KeyError("no such field")
    return parse(body, limits)
protocol.parse = parse_wrongly
advance, calls = Programs.advance, []
def failing(*arguments):
    calls.append(1)
    if len(calls) > 20:
        raise MemoryError("out of memory")
    return advance(*arguments)
Programs.advance = failing
"""


def test_a_model_that_fails_is_told_to_all_and_ends_the_process(quick, trained, tmp_path):
    with serving(quick, trained, *QUICK, log=tmp_path / "log", code=FAILING) as server:
        broken = server.complete(prompt="mistake")
        assert broken.status_code == 500 and broken.json()["error"]["type"] == "server_error"
        assert "POST /v1/completions has failed" in server.log.read_text()
        assert "KeyError: 'no such field'" in server.log.read_text()
        assert broken.headers["connection"] == "close"
        assert server.http.get("/health").status_code == 200
        waiting = [server.begin(**ENDLESS) for _ in range(3)]
        for connection in waiting:
            said = rest(connection)
            assert said.startswith(b"HTTP/1.1 500 ") and b"the model has failed" in said
        assert server.process.wait(60) == 1
        log = server.log.read_text()
        assert "MemoryError: out of memory" in log
        assert log.splitlines()[-1] == "charlstm: run has failed: the error is above"


def test_what_cannot_be_served_is_told_in_one_line(charlstm, trained, tmp_path):
    keys = {"empty": "\n \n", "umlaut": "schlüssel\n", "blank": "two words\n"}
    for name, text in keys.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "latin").write_bytes(b"schl\xfcssel\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = (
            ([trained, f"--port={port}"], "Address already in use", "choose another --port"),
            ([trained, "--host=no.such.host.example"], "cannot listen at", "--host"),
            ([trained, "--host=" + "x" * 200], "cannot listen at", "--host"),
            ([trained, f"--api_key_file={tmp_path}/empty"], "has no key", "one a line"),
            ([trained, f"--api_key_file={tmp_path}/missing"], "No such file", "missing"),
            ([trained, f"--api_key_file={tmp_path}/umlaut"], "letters, digits", "ASCII"),
            ([trained, f"--api_key_file={tmp_path}/blank"], "no blanks", "ASCII"),
            ([trained, f"--api_key_file={tmp_path}/latin"], "not UTF-8", "latin"),
            ([tmp_path / "none"], "no such checkpoint", "none"),
            ([], "no model is named", "charlstm serve RUN"),
            ([trained, f"--checkpoint={trained}"], "without --checkpoint", "charlstm serve"),
            ([trained, "--max_batch=0"], "max_batch", "--help"),
        )
        for arguments, *said in cases:
            done = charlstm("serve", *arguments)
            assert done.returncode == 2 and done.stdout == ""
            assert done.stderr.count("\n") == 1 and done.stderr.startswith("charlstm: ")
            assert all(words in done.stderr for words in said), done.stderr


def test_a_missing_extra_is_named(environment, trained, tmp_path):
    code = "import sys; sys.modules['uvicorn'] = None"
    server = Server(environment, [trained], tmp_path / "log", code)
    assert server.process.wait(60) == 2
    said = server.log.read_text()
    assert said == "charlstm: charlstm serve needs uvicorn: pip install 'charlstm[serve]'\n"
    server.process.stdout.close()


def test_models_have_the_names_of_their_folders_or_files(trained):
    for path, name in (
        ("runs/quickstart", "quickstart"),
        ("runs/quickstart/", "quickstart"),
        ("runs/quickstart/checkpoints", "quickstart"),
        ("runs/quickstart/checkpoints/400", "quickstart-400"),
        ("models/best.safetensors", "best"),
        ("shakespeare", "shakespeare"),
        ("gs://bucket/runs/mine", "mine"),
        ("/", "model"),
        ("runs/caf\udce9", "caf\\xe9"),
    ):
        assert served.name_of(path) == name
    options = Options(max_batch=1)
    found = served.load([str(trained)] * 3, options)
    assert list(found) == ["run", "run-2", "run-3"]
    assert [one.describe()["id"] for one in found.values()] == list(found)
    with pytest.raises(UserError, match="no such checkpoint"):
        served.load([str(trained), "none"], options)


def test_a_better_checkpoint_is_taken_while_texts_are_made(quick, charlstm, trained, tmp_path):
    """What was begun is finished with the old one; a damaged one is passed over.

    In the end a second signal does not wait for what runs.
    """
    run, later = tmp_path / "run", tmp_path / "later"
    shutil.copytree(trained, run)
    shutil.move(run / "checkpoints" / "40", later)
    assert [step.name for step in (run / "checkpoints").iterdir()] == ["30"]

    def sampled(num_bytes):
        flags = f"--num_bytes={num_bytes}", "--prompt=a", "--temperature=1", "--seed=3"
        return charlstm("sample", f"--checkpoint={run}", *flags, "--noecho", "--raw").stdout

    asked = {"prompt": "a", "seed": 3}
    with serving(quick, run, *QUICK, "--watch=0.1", log=tmp_path / "log") as server:
        old = server.text(**asked, max_tokens=100_000)
        assert old[:500] == sampled(500)
        damaged = tmp_path / "damaged"
        shutil.copytree(later, damaged)
        weights = max((damaged / "params").rglob("*"), key=lambda path: path.stat().st_size)
        weights.write_bytes(bytes(weights.stat().st_size))
        stream = server.begin(**asked, max_tokens=100_000, stream=True)
        server.until(lambda: server.active() == (1, 0))
        shutil.move(damaged, run / "checkpoints" / "50")
        server.until(lambda: "passing over the checkpoint" in server.log.read_text())
        shutil.move(later, run / "checkpoints" / "40")
        server.until(lambda: "now of" in server.log.read_text())
        _, _, body = answer(stream)
        events = [line for line in body.splitlines() if line[:7] == b"data: {"]
        texts = [json.loads(event[6:])["choices"][0]["text"] for event in events]
        assert "".join(texts) == old
        new = server.text(**asked, max_tokens=500)
        assert new == sampled(500) != old[:500]
        about = server.http.get("/v1/models/run").json()["charlstm"]
        assert about["bits_per_byte"] > 0
        shutil.rmtree(run)
        server.until(lambda: "run: not reloaded: no such checkpoint" in server.log.read_text())
        assert server.text(**asked, max_tokens=500) == new
        end_twice(server)


def end_twice(server):
    """Asks a server for its end while it makes a text, and asks again, which does not wait."""
    stream = server.begin(**ENDLESS, stream=True)
    server.until(lambda: server.active() == (1, 0))
    server.process.send_signal(signal.SIGINT)
    server.until(lambda: "ending: no request is taken any more" in server.log.read_text())
    assert server.process.poll() is None and stream.recv(100)
    assert server.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert server.log.read_text().endswith("ended without waiting for what ran\n")
    assert b"[DONE]" not in rest(stream)
