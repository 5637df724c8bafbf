"""Requests: what is asked for is understood, and everything else is refused with its reason."""

import json

import pytest

from charlstm.serving import protocol
from charlstm.serving.fields import Refusal
from charlstm.serving.protocol import Limits, parse, parse_prompt, parse_tokens

LIMITS = Limits(prompt_bytes=2_000_000, new_bytes=1_000_000, waiting=100)
OTHER_TYPES = [True, 1.5, "1", [1], {"a": 1}, []]


def asked(**values):
    return parse(json.dumps({"prompt": "a"} | values).encode(), LIMITS)


def refusal(body, limits=LIMITS):
    with pytest.raises(Refusal) as caught:
        parse(body if isinstance(body, bytes) else json.dumps(body).encode(), limits)
    error = caught.value.content["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    error["message"].encode()  # no half of a surrogate pair
    assert len(error["message"]) < 300
    return caught.value.status, error


def test_defaults_are_those_of_the_protocol():
    found = parse(b"{}", LIMITS)
    assert found.prompts == [b""] and found.max_tokens == 16 and found.n == 1
    assert found.settings.temperature == 1 and found.settings.top_p == 1
    assert found.seed is None and found.logprobs is None and not found.stream and not found.echo
    nulls = dict.fromkeys(["prompt", "max_tokens", "n", "seed", "stop", "stream", "cells"])
    assert parse(json.dumps(nulls).encode(), LIMITS) == found


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("é", ["é".encode()]),
        ("", [b""]),
        ([], None),
        ([65, 255, 0], [b"A\xff\x00"]),
        (["a", "é"], [b"a", "é".encode()]),
        ([[65], [255]], [b"A", b"\xff"]),
        (["a", [66]], [b"a", b"B"]),
        ([[]], [b""]),
        ([256], None),
        ([-1], None),
        ([10**30], None),
        ([1.0], None),
        ([True], None),
        ([None], None),
        ([["a"]], None),
        (5, None),
        ({"a": 1}, None),
        ("\ud800", None),
        ("\ud83d\ude00", ["😀".encode()]),
    ],
    ids=str,
)
def test_a_prompt_is_text_or_byte_values_or_a_list_of_these(prompt, read):
    if read is None:
        status, error = refusal({"prompt": prompt})
        assert status == 400 and error["type"] == "invalid_request_error"
    else:
        assert asked(prompt=prompt).prompts == read


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("model", ["a", None], [True, 1, ["a"], {}]),
        ("max_tokens", [0, 1_000_000], [-1, 1_000_001, 10**400, *OTHER_TYPES]),
        ("n", [1, 100], [0, 129, 10**400, *OTHER_TYPES]),
        ("temperature", [0, 0.5, 2, 1e6], [-1, 1e7, True, "1", [1], {}]),
        ("top_p", [0.1, 1, 1.0], [0, 1.1, -1, True, "1", [1], {}]),
        ("top_k", [-1, 0, 5], [-2, 2**31, *OTHER_TYPES]),
        ("seed", [0, -1, 2**63, 12345], [2**64 + 1, -(2**63) - 1, *OTHER_TYPES]),
        ("echo", [True, False], [0, 1, "true", [], {}]),
        ("stream", [True, False], [0, 1, "true", [], {}]),
        ("logprobs", [0, 20], [-1, 21, *OTHER_TYPES]),
        ("stop", ["a", ["a", "b"], [], ["x"] * 16], [5, True, {}, [""], "", ["x"] * 17, [1]]),
        ("stop", ["é" * 500], ["é" * 501, ["\udfff"]]),
        ("cells", [["0:1"], []], ["0:1", [1], ["1"], ["0:1:2"], ["0:1"] * 65, {}, True, ["-1:0"]]),
        ("stream_options", [{}, {"include_usage": True}], [1, [], ""]),
        ("suffix", ["", None], ["x", 1]),
        ("best_of", [1, None], [2, [1]]),
        ("logit_bias", [{}], [{"5": 1}, 3]),
        ("presence_penalty", [0, 0.0], [1, "0"]),
        ("frequency_penalty", [0], [0.1]),
        ("repetition_penalty", [1], [1.2]),
        ("min_p", [0], [0.1]),
    ],
)
def test_every_field_is_checked(name, good, bad):
    for value in good:
        asked(**{name: value})
    for value in bad:
        status, error = refusal({"prompt": "a", name: value})
        assert status == 400 and name in error["message"].replace("a cell", "cells")


def test_fields_mean_what_they_say():
    found = asked(
        max_tokens=5, n=3, best_of=3, temperature=0.5, top_k=-1, top_p=0.9, seed=-1, echo=True,
        logprobs=2, stream=True, stream_options={"include_usage": True}, stop="é", cells=["1:17"],
        user="somebody", unknown={"fields": "are left out of account"},
    )  # fmt: skip
    assert (found.max_tokens, found.n, found.logprobs, found.echo, found.stream) == (
        5, 3, 2, True, True,
    )  # fmt: skip
    assert (found.settings.temperature, found.settings.top_k, found.settings.top_p) == (0.5, 0, 0.9)
    assert found.seed == 2**32 - 1 and asked(seed=2**32 + 7).seed == 7
    assert found.stops == ("é".encode(),) and found.cells == ((1, 17),) and found.include_usage


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"null",
        b"5",
        b"NaN",
        b"\xff\xfe{",
        b'{"prompt": "\xff"}',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": -Infinity}',
        b'{"temperature": 1e999}',
        b'{"top_p": NaN}',
        b'{"max_tokens": NaN}',
        b'{"max_tokens": 1e3}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"seed": ' + b"9" * 4000 + b"}",
        b"[" * 100_000,
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"n": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a":' * 100_000,
        b'{"prompt": "\\ud800"}',
        b'{"model": ' + json.dumps("m" * 100_000).encode() + b', "n": "x"}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_request_is_refused_in_one_line(body):
    assert refusal(body)[0] == 400


def test_a_request_that_is_too_large_is_refused():
    limits = Limits(prompt_bytes=10, new_bytes=50, waiting=4)
    status, error = refusal({"prompt": ["abcdef", "ghijk"]}, limits)
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert "11 bytes" in error["message"]
    assert "more texts" in refusal({"prompt": ["a", "b"], "n": 3}, limits)[1]["message"]
    assert "from 0 to 50" in refusal({"max_tokens": 51}, limits)[1]["message"]
    many = {"prompt": "a" * 100_000, "echo": True, "logprobs": 20}
    assert "set stream" in refusal(many)[1]["message"]
    assert "set stream" in refusal({"max_tokens": 50_000, "cells": ["0:0"] * 50})[1]["message"]
    asked(**many | {"stream": True})
    asked(**many | {"echo": False})
    asked(prompt="a" * 1_000_000, echo=True, logprobs=1, max_tokens=1)  # a megabyte is scored
    assert protocol.Limits().body_bytes > 6_000_000


def test_the_options_of_a_stream_are_checked():
    assert not asked(stream_options={"other": 1}).include_usage
    assert "include_usage" in refusal({"stream_options": {"include_usage": 1}})[1]["message"]


def test_tokens_are_bytes_in_both_directions():
    assert parse_prompt(json.dumps({"prompt": "é"}).encode()) == "é".encode()
    assert parse_tokens(b'{"tokens": [195, 169, 255]}') == b"\xc3\xa9\xff"
    assert parse_tokens(b'{"tokens": []}') == b""
    for body in (b"{}", b'{"prompt": 5}', b'{"prompt": "\\ud800"}', b"[]"):
        with pytest.raises(Refusal):
            parse_prompt(body)
    for body in (b"{}", b'{"tokens": "ab"}', b'{"tokens": [256]}', b'{"tokens": [[1]]}', b"1"):
        with pytest.raises(Refusal):
            parse_tokens(body)
