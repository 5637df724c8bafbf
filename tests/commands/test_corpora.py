import functools
import hashlib
import json
import os

import pytest


@pytest.fixture
def corpora(charlstm, tmp_path):
    """Runs `charlstm corpora …` with an empty cache and without a package index."""
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
    }
    return functools.partial(charlstm, "corpora", env=environment)


def test_list_has_a_line_for_each_registered_corpus(corpora) -> None:
    done = corpora()
    head, *rows = done.stdout.splitlines()
    assert head.split()[:3] == ["name", "bytes", "cached"]
    assert [row.split()[:3] for row in rows] == [
        ["shakespeare", "4,840,439", "no"],
        ["tinyshakespeare", "1,115,394", "no"],
        ["enwik8", "100,000,000", "no"],
        ["names", "36,122", "no"],
    ]
    listed = json.loads(corpora("--json").stdout)
    sizes = [corpus["num_bytes"] for corpus in listed]
    assert sizes == [4_840_439, 1_115_394, 100_000_000, 36_122]


def test_description_as_json_is_one_object(corpora, tmp_path) -> None:
    fox = tmp_path / "fox.txt"
    text = b"the quick brown fox jumps over the lazy dog. " * 40
    fox.write_bytes(text)
    done = corpora("describe", fox, "--json", "--valid_size=0.1", "--test_size=90")
    facts = json.loads(done.stdout)
    assert facts["name"] == "fox.txt"
    assert facts["num_bytes"] == 1800
    assert facts["num_distinct_bytes"] == len(set(text))
    assert facts["sha256"] == hashlib.sha256(text).hexdigest()
    assert facts["is_utf8"] is True
    assert facts["splits"] == {"train": [0, 1530], "valid": [1530, 1710], "test": [1710, 1800]}
    levels = facts["ngram_levels"]
    assert [level["order"] for level in levels] == list(range(6))
    assert levels[0]["bits_per_byte"] > 4 > 0.5 > levels[5]["bits_per_byte"]
    assert levels[5]["accuracy"] > 0.95


def test_description_for_people_shows_splits_and_levels(corpora) -> None:
    done = corpora("describe", "-", input="naïve text " * 100)
    assert "bytes     1,200, 9 of 256 occur, UTF-8 text" in done.stdout
    assert "splits    train 1,080, valid 60, test 60" in done.stdout
    assert "    2  trigram" in done.stdout


def test_description_without_validation_split_says_why_it_has_no_levels(corpora) -> None:
    done = corpora("describe", "-", "--valid_size=0", input="text")
    assert "no n-gram levels: nothing is held out for validation" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["describe", "shakespeare"], "no connection to the package index"),
        (["describe", "nowhere.txt"], "'nowhere.txt'"),
        (["describe"], "`charlstm corpora describe CORPUS`"),
        (["remove", "shakespeare"], "`charlstm corpora describe CORPUS`"),
        (["describe", "-", "--valid_size=2000"], "data.valid_size"),
        (["describe", "-", "--valid_size=nan"], "--valid_size=nan: it must be finite"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(
    corpora, arguments: list[str], expected: str
) -> None:
    done = corpora(*arguments, input="a fox")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("charlstm: ")
    assert expected in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
