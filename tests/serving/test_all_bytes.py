"""Texts of any bytes, by the real server and client: what is no UTF-8, and what is cut in two."""

import itertools

import exported_models
import processes
import pytest
import servers

from charlstm.exporting import safetensors

PROMPT = "né漢😀: "


@pytest.fixture(scope="module")
def server(environment, tmp_path_factory):
    """Serves an untrained model of all 256 bytes, out of a file of `charlstm export`."""
    folder = tmp_path_factory.mktemp("server")
    model, metadata = exported_models.make_model("one layer", bytes(range(256)))
    safetensors.write(model, metadata, folder / "random.safetensors", "float32")
    flags = folder / "random.safetensors", "--max_batch=1"
    environment = environment | processes.CHEAP
    with servers.serving(environment, *flags, log=folder / "log") as running:
        running.path = flags[0]
        yield running


@pytest.fixture(scope="module")
def client(server):
    with servers.openai_client(server) as made:
        yield made.completions


@pytest.fixture(scope="module")
def sample(server, charlstm, environment):
    """The bytes that `charlstm sample` makes: some are characters, and most are none."""
    flags = f"--checkpoint={server.path}", f"--prompt={PROMPT}", "--num_bytes=800", "--seed=4"
    flags = *flags, "--temperature=1", "--noecho", "--raw"
    done = charlstm("sample", *flags, text=False, env=environment | processes.CHEAP)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(errors="replace")
    assert len(done.stdout) == 800 and "\ufffd" in text
    assert any("\x80" <= sign < "\ufffd" for sign in text)
    return done.stdout


ASKED = {"model": "random", "prompt": PROMPT, "max_tokens": 800, "seed": 4}


def test_bytes_that_are_no_utf8_are_told_exactly(client, sample):
    (choice,) = client.create(**ASKED).choices
    assert choice.text == sample.decode(errors="replace")
    (choice,) = client.create(**ASKED, logprobs=0, echo=True).choices
    data = PROMPT.encode() + sample
    assert choice.text == data.decode(errors="replace")
    told = choice.logprobs
    assert bytes(told.bytes) == data
    assert told.tokens[:3] == ["n", "bytes:\\xc3", "bytes:\\xa9"]
    assert told.text_offset[:12] == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5]
    for offset, byte in zip(told.text_offset, data, strict=True):
        assert byte >= 0x80 or choice.text[offset] == chr(byte)
    # The very bytes are a prompt again.
    again = client.create(model="random", prompt=list(data), max_tokens=5, seed=1)
    assert again.usage.prompt_tokens == len(data)


@pytest.mark.parametrize("more", [{}, {"logprobs": 1}, {"echo": True}])
def test_a_character_in_a_stream_comes_as_a_whole(client, sample, more):
    parts = list(client.create(**ASKED, **more, stream=True))
    texts = [part.choices[0].text for part in parts]
    data = (PROMPT.encode() if "echo" in more else b"") + sample
    assert "".join(texts) == data.decode(errors="replace") and len(texts) > 5
    if "logprobs" in more:
        pieces = [bytes(part.choices[0].logprobs.bytes) for part in parts]
        assert b"".join(pieces) == data
        # What has been told so far is the text that was sent so far.
        for told, sent in zip(
            itertools.accumulate(pieces), itertools.accumulate(texts), strict=True
        ):
            assert told.decode(errors="replace") == sent


def test_stops_may_have_characters_of_several_bytes(client, sample):
    text = sample.decode(errors="replace")
    place = next(i for i, sign in enumerate(text) if "\x80" <= sign < "\ufffd")
    found = client.create(**ASKED, stop=[text[place]]).choices[0]
    assert found.text == sample[: sample.index(text[place].encode())].decode(errors="replace")
    assert found.finish_reason == "stop"
