"""The protocol, by the real server and the real client of OpenAI."""

import html
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import openai
import processes
import pytest
import servers
import yaml
from conftest import wait_until

from charlstm.checkpoint.reading import read_best
from charlstm.evaluation.evaluator import Evaluator
from charlstm.model.language_model import LanguageModel
from charlstm.runtime import meshes
from charlstm.serving.answers import token

ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def server(trained, environment, tmp_path_factory):
    """Serves the tiny run, and the model that comes with charlstm."""
    log = tmp_path_factory.mktemp("server") / "log"
    environment = environment | processes.CHEAP
    with servers.serving(environment, trained, "shakespeare", log=log) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with servers.openai_client(server) as made:
        yield made.completions


@pytest.fixture(scope="module")
def samples(charlstm, environment, trained):
    """What `charlstm sample` makes of a prompt and a seed: three texts."""
    flags = f"--checkpoint={trained}", "--prompt=some words", "--num_bytes=120", "--seed=5"
    flags = *flags, "--temperature=1", "--num_samples=3", "--noecho", "--raw"
    done = charlstm("sample", *flags, env=environment | processes.CHEAP)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 360
    return [done.stdout[start : start + 120] for start in (0, 120, 240)]


ASKED = {"model": "run", "prompt": "some words", "max_tokens": 120, "seed": 5}


def test_a_completion_is_what_charlstm_sample_makes(client, samples):
    found = client.create(**ASKED)
    assert found.object == "text_completion" and found.model == "run"
    (choice,) = found.choices
    assert (choice.text, choice.finish_reason, choice.index) == (samples[0], "length", 0)
    assert choice.logprobs is None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (10, 120)
    assert found.usage.total_tokens == 130
    echoed = client.create(**ASKED, echo=True)
    assert echoed.choices[0].text == "some words" + samples[0]


def test_several_choices_are_the_samples_of_one_seed(client, samples):
    found = client.create(**ASKED, n=3)
    assert [choice.text for choice in found.choices] == samples
    assert [choice.index for choice in found.choices] == [0, 1, 2]


def test_many_texts_at_a_time_are_the_same_ones(server, client, samples):
    """So many that the batch is split over the cores."""
    asked = [server.begin(model="run", max_tokens=ENDLESS, stream=True) for _ in range(12)]
    server.until(lambda: server.active() == (12, 0))
    assert [choice.text for choice in client.create(**ASKED, n=3).choices] == samples
    for connection in asked:
        connection.close()
    server.until(lambda: server.active() == (0, 0))


def test_prompts_are_texts_or_byte_values_or_lists_of_them(client, samples):
    byte_values = list(b"some words")
    asked = {name: value for name, value in ASKED.items() if name != "prompt"}
    for prompt, count in (
        (byte_values, 1),
        (["some words", "some words"], 2),
        ([byte_values, byte_values], 2),
    ):
        found = client.create(**asked, prompt=prompt, n=2)
        assert [choice.text for choice in found.choices] == samples[:2] * count
        assert found.usage.prompt_tokens == 10 * count
    # No prompt is a line break, which is not echoed.
    nothing, line_break = (
        client.create(**asked, prompt=prompt, echo=True).choices[0].text for prompt in ("", "\n")
    )
    assert "\n" + nothing == line_break


def test_a_stream_has_the_same_text(client, samples):
    for more in ({}, {"logprobs": 1}, {"echo": True}, {"echo": True, "logprobs": 0}):
        parts = list(client.create(**ASKED, **more, stream=True))
        text = "".join(part.choices[0].text for part in parts)
        assert text == ("some words" if "echo" in more else "") + samples[0]
        reasons = [part.choices[0].finish_reason for part in parts]
        assert reasons == [*[None] * (len(parts) - 1), "length"] and len(parts) > 3
        assert len({part.id for part in parts}) == 1
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *parts, last = client.create(**ASKED, n=3, **options)
    for index, wanted in enumerate(samples):
        own = [part.choices[0].text for part in parts if part.choices[0].index == index]
        assert "".join(own) == wanted
    assert last.choices == [] and last.usage.completion_tokens == 360


def test_a_stream_is_server_sent_events(server):
    answer = server.complete(**ASKED, stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") and "\n" not in event for event in events[:-2])


def test_stops_end_a_text_and_are_left_out(client, samples):
    stop = samples[0][50:54]
    place = samples[0].index(stop)
    for stream in (False, True):
        asked = {**ASKED, "stop": [stop, "no such text"], "stream": stream}
        found = client.create(**asked)
        parts = list(found) if stream else [found]
        assert "".join(part.choices[0].text for part in parts) == samples[0][:place]
        assert parts[-1].choices[0].finish_reason == "stop"
    found = client.create(**ASKED, n=3, stop=samples[1][0])
    assert found.choices[1].text == "" and found.choices[1].finish_reason == "stop"


def test_nothing_to_make(client):
    found = client.create(model="run", prompt="abc", max_tokens=0)
    assert found.choices[0].text == "" and found.choices[0].finish_reason == "length"
    found = client.create(model="run", prompt="abc", max_tokens=0, echo=True, logprobs=0)
    assert found.choices[0].text == "abc" and found.choices[0].logprobs.tokens == ["a", "b", "c"]


HELD_OUT = (
    "It was late when they came to the harbour, and nobody was awake but the watch. "
    "The captain had said nothing all day, and the men, who knew him, had asked nothing.\n"
    "When the tide turned they cast off; and the lights behind them went out one by one.\n"
) * 3 + "So ends the first part of a story that has no second one.\nWho knows why?\n" * 20


def nats_by_the_command(charlstm, trained, text, path):
    path.write_text(text)
    flags = f"--checkpoint={trained}", f"--corpus={path}", "--split=all", "--json"
    done = charlstm("evaluate", *flags, f"--warm_up={len(text)}")  # in one go, as here
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["nats"]


def nats_by_the_evaluator(text):
    mesh = meshes.single_device_mesh()
    _, model, _ = read_best(LanguageModel, "shakespeare", meshes.replicated(mesh))
    data = np.frombuffer(text.encode(), np.uint8)
    with jax.set_mesh(mesh):
        return Evaluator(model, data, 0, len(data), mesh, warm_up=len(data))(model).nats


@pytest.mark.parametrize("name", ["run", "shakespeare"])
def test_log_probabilities_of_a_prompt_are_those_of_evaluate(
    client, charlstm, trained, text_file, tmp_path, name
):
    """In the default dtype; the model that comes with charlstm is in bfloat16 on many CPUs."""
    if name == "run":
        text = text_file.read_text()[3000:6000]
        wanted = nats_by_the_command(charlstm, trained, text, tmp_path / "text")
    else:
        text = HELD_OUT
        wanted = nats_by_the_evaluator(text)
    asked = {"model": name, "prompt": "\n" + text, "max_tokens": 0, "echo": True, "logprobs": 0}
    told = client.create(**asked).choices[0].logprobs
    assert told.token_logprobs[0] is None
    assert -sum(told.token_logprobs[1:]) / len(text) == pytest.approx(wanted, abs=1e-4)
    # A byte more to make, as lm-eval asks for it, changes nothing.
    told = client.create(**asked | {"max_tokens": 1, "logprobs": 1, "seed": 1}).choices[0].logprobs
    found = told.token_logprobs[1:-1]
    assert -sum(found) / len(text) == pytest.approx(wanted, abs=1e-4)
    likeliest = [max(top.values()) for top in told.top_logprobs[1:-1]]
    assert all(own <= best for own, best in zip(found, likeliest, strict=True))
    assert any(own == best for own, best in zip(found, likeliest, strict=True))


def test_log_probabilities_are_of_all_bytes_together_one(client, server):
    alphabet = server.http.get("/v1/models/run").json()["charlstm"]["alphabet"]
    told = client.create(**ASKED | {"max_tokens": 8}, logprobs=20).choices[0].logprobs
    for own, top in zip(told.token_logprobs, told.top_logprobs, strict=True):
        assert own in top.values() and 20 <= len(top) <= 21 and own <= max(top.values())
        assert set(top) <= {token(byte) for byte in alphabet}
        assert sum(map(math.exp, top.values())) < 1 + 1e-6
    assert "".join(told.tokens) == client.create(**ASKED | {"max_tokens": 8}).choices[0].text
    assert told.text_offset == list(range(8))
    greedy = client.create(**ASKED | {"max_tokens": 8}, temperature=0, logprobs=1).choices[0]
    assert greedy.logprobs.token_logprobs == [
        max(top.values()) for top in greedy.logprobs.top_logprobs
    ]


def test_states_of_cells_are_told_byte_by_byte(server):
    asked = {**ASKED, "max_tokens": 20, "echo": True, "cells": ["0:3", "1:15", "0:3"]}
    told = server.complete(**asked).json()["choices"][0]["logprobs"]
    assert len(told["cells"]) == 30 and told["token_logprobs"] == [None] * 30
    assert all(row[0] == row[2] and -1 <= min(row) <= max(row) <= 1 for row in told["cells"])
    assert len({row[0] for row in told["cells"]}) > 5
    # A cell's state follows from what was read: the text as a prompt has the same ones.
    text = bytes(told["bytes"])
    again = server.complete(**asked | {"prompt": list(text), "max_tokens": 0})
    assert again.json()["choices"][0]["logprobs"]["cells"] == told["cells"]
    refused = server.complete(**asked | {"cells": ["2:0"]})
    assert refused.status_code == 400 and "layers 0 to 1" in refused.json()["error"]["message"]


def test_models_are_listed(server, client):
    found = client._client.models.list().data
    assert [model.id for model in found] == ["run", "shakespeare"]
    assert found[0].object == "model" and found[0].owned_by == "charlstm"
    about = client._client.models.retrieve("run").charlstm
    assert about["num_layers"] == 2 and about["hidden_size"] == 16 and about["bits_per_byte"] > 0
    assert len(about["alphabet"]) == 28


def test_errors_are_those_that_the_client_knows(server, client):
    for bad, kind, status, said in (
        ({"model": "none"}, openai.NotFoundError, 404, "the models are run, shakespeare"),
        ({"prompt": "É"}, openai.BadRequestError, 400, "not in the alphabet"),
        ({"max_tokens": -1}, openai.BadRequestError, 400, "max_tokens"),
        ({"prompt": "a" * 1_000_001}, openai.BadRequestError, 400, "shorten it"),
        ({"prompt": [300]}, openai.BadRequestError, 400, "0 to 255"),
        ({"logit_bias": {"5": 1}}, openai.BadRequestError, 400, "logit_bias is not supported"),
    ):
        for stream in (False, True):
            with pytest.raises(kind, match=said) as caught:
                client.create(**ASKED | bad, stream=stream)
            assert caught.value.status_code == status
            assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        client._client.models.retrieve("none")
    with pytest.raises(openai.NotFoundError, match="v1/chat/completions"):
        client._client.chat.completions.create(model="run", messages=[])
    unnamed = server.complete(prompt="a")
    assert unnamed.status_code == 404 and "must be named" in unnamed.json()["error"]["message"]


def test_wrong_ways_are_told_in_the_same_shape(server):
    for method, path, status in (
        ("GET", "/v1/completions", 405),
        ("PUT", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/models/a/b%20%ED%A0%80", 404),
        ("DELETE", "/", 405),
    ):
        answer = server.http.request(method, path)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
    assert server.http.get("/v1/completions").headers["allow"] == "POST"
    assert server.http.head("/health").status_code == 200


def test_the_tokenizer_is_that_of_bytes(server):
    info = server.http.get("/tokenizer_info").json()
    assert info["bos_token"] == "\n" and info["eos_token"] is None
    found = server.http.post("/tokenize", json={"prompt": "é!", "add_special_tokens": False})
    assert found.json() == {"tokens": [195, 169, 33], "count": 3}
    found = server.http.post("/detokenize", json={"tokens": [195, 169, 33, 255]})
    assert found.json() == {"prompt": "é!�"}
    assert server.http.post("/tokenize", json={"prompt": 5}).status_code == 400
    assert server.http.post("/detokenize", json={}).status_code == 400


def test_metrics_are_prometheus_text_and_count_what_was_done(server, client):
    before = server.metrics()
    client.create(**ASKED, n=2)
    server.until(lambda: server.active() == (0, 0))
    after = server.metrics()

    def grown(*name):
        return after[name] - before[name]

    assert grown("charlstm_bytes_made_total", "run") == 240
    assert grown("charlstm_bytes_made_total", "shakespeare") == 0
    assert grown("charlstm_bytes_read_total", "run") == 20
    assert grown("charlstm_requests_total", "200") == 1
    assert grown("charlstm_first_byte_seconds_count") == 0  # that is of streams
    assert 0 < grown("charlstm_request_seconds_sum") < 60
    assert grown("charlstm_chunk_seconds_total", "run") > 0
    answer = server.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 0 < after["charlstm_cache_bytes", "run"] < 64 * 2**20


def test_equal_prompts_of_a_request_without_a_seed_get_texts_of_their_own(client):
    answer = client.create(model="run", prompt=["some words"] * 3, max_tokens=60)
    assert len({choice.text for choice in answer.choices}) == 3


def test_no_answer_repeats_a_host_that_a_client_made_up(server):
    for path in ("/health/", "/v1/completions/"):
        answer = server.http.get(path, headers={"Host": "else.where"}, follow_redirects=False)
        assert answer.status_code == 404 and "location" not in answer.headers


def test_the_page_writes_with_the_server(server, open_page):
    """In a real browser: text streams in, cells light up, and nothing else is requested."""
    answer = server.http.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = html.unescape(re.search('Content-Security-Policy" content="([^"]*)"', answer.text)[1])
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    page = open_page(server.url)
    requested = []
    page.on("request", lambda one: requested.append((one.method, one.url)))
    assert page.locator("h1").inner_text() == "run"
    page.locator("#prompt").fill("some words")
    for name, value in (("length", 4000), ("seed", 5), ("temperature", 1)):
        page.locator(f"#{name}").fill(str(value))
    page.get_by_role("button", name="Write").click()
    wait_until(page, "document.querySelectorAll('.byte').length > 20")
    page.locator("#go-on:enabled").wait_for()
    signs = page.evaluate("[...document.querySelectorAll('.byte')].map(made => made.textContent)")
    text = "".join("\n" if sign == "↵" else sign for sign in signs)
    assert text == "some words" + server.text(**ASKED | {"max_tokens": 4000})
    assert page.locator("#status").inner_text() == "Wrote 4,000 bytes, seed 5."
    page.locator(".byte").nth(30).hover()
    shown = page.locator("#details").inner_text()
    cells = page.locator(".lamp .label").all_inner_texts()
    asked = {**ASKED, "max_tokens": 21, "echo": True, "logprobs": 1, "cells": cells}
    told = server.complete(**asked).json()["choices"][0]["logprobs"]
    assert f"probability {100 * math.exp(told['token_logprobs'][30]):.1f} %" in shown
    for name, state in zip(cells, told["cells"][30], strict=True):
        assert (
            f"{name}\N{NO-BREAK SPACE}{'−' if round(state, 2) < 0 else '+'}{abs(state):.2f}"
            in shown
        )
    assert requested == [("POST", f"{server.url}v1/completions")]


DOCS = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def examples(language):
    """The examples of `docs/serving.md` in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS, re.M | re.S)


def test_the_documented_examples_run(server, environment, tmp_path):
    commands, scripts = examples("sh"), examples("python")
    assert len(commands) == 2 and len(scripts) == 1
    said = []
    for program, text in (*(("bash", one) for one in commands), (sys.executable, scripts[0])):
        path = tmp_path / "example"
        path.write_text(text.replace("http://127.0.0.1:8000/", server.url))
        done = subprocess.run(
            [program, path], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        said.append(done.stdout)
    whole, stream, script = said
    asked = {"prompt": "ROMEO:", "max_tokens": 100, "temperature": 0.8, "seed": 1}
    wanted = server.text(model="shakespeare", **asked)
    assert json.loads(whole)["choices"][0]["text"] == wanted
    assert stream.count("data: {") > 3 and stream.endswith("data: [DONE]\n\n")
    lines = script.splitlines()
    assert lines[0].split()[0] in ("stop", "length")
    score = float(re.search(r"(-\d+\.\d+)$", lines[-1])[1])  # behind the text of the stream
    assert -80 < score < -10


def test_the_documented_flags_and_metrics_are_there(server, charlstm):
    server.text(
        model="run", prompt="a", max_tokens=1
    )  # what is counted by status is not there before
    told = set(re.findall(r"--([a-z_]+)", DOCS))
    elsewhere = {"num_samples", "seed", "model", "tasks", "include_path", "model_args"}
    known = charlstm("serve", "--help").stdout
    for flag in told - elsewhere:
        assert f"--{flag}:" in known or f"--[no]{flag}:" in known, flag
    names = {name for name, *_ in server.metrics()}
    table = DOCS.partition("## Metrics")[2].partition("## ")[0]
    documented = set(re.findall(r"`([a-z_]+)`", table))
    assert len(documented) == 12
    for name in documented:
        assert {f"charlstm_{name}", f"charlstm_{name}_count"} & names, name
    task = yaml.safe_load(examples("yaml")[0])
    assert task["output_type"] == "loglikelihood_rolling"
