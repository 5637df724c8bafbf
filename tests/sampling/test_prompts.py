"""What a text begins with, and bytes of a prompt that a model does not know."""

import pytest

from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError
from charlstm.sampling import prompts

WORDS = Alphabet("corpus", b"\n abcde")


@pytest.mark.parametrize(
    ("symbols", "wanted"), [(b"\t\n abc", b"\n"), (b" abc", b" "), (b"\0abc", b"\0")]
)
def test_the_default_prompt_is_one_that_the_model_can_read(symbols, wanted):
    alphabet = Alphabet("corpus", symbols)
    assert prompts.default(alphabet) == wanted
    assert alphabet.decode(prompts.encode(alphabet, wanted)) == wanted


@pytest.mark.parametrize(
    ("unknown", "wanted"),
    [("skip", b"a d"), ("", b"a d"), ("e", b"eaee dee"), ("bc", b"bcabcbc dbcbc")],
)
def test_unknown_bytes_of_a_prompt_are_left_out_or_replaced(unknown, wanted):
    symbols = prompts.encode(WORDS, "XaYZ dé".encode(), unknown)
    assert WORDS.decode(symbols) == wanted


def test_a_prompt_that_is_known_stays_as_it_is():
    for unknown in "error", "skip", "a":
        assert WORDS.decode(prompts.encode(WORDS, b"bad\nace", unknown)) == b"bad\nace"


@pytest.mark.parametrize(
    ("unknown", "says"),
    [
        ("error", "0x58 at offset 2 .*--unknown=skip"),
        ("XX", "--unknown=XX has bytes that the model does not know"),
    ],
)
def test_unknown_bytes_are_refused_with_the_flag_that_takes_them(unknown, says):
    with pytest.raises(UserError, match=says):
        prompts.encode(WORDS, b"abX", unknown)


def test_a_prompt_without_a_known_byte_is_refused():
    with pytest.raises(UserError, match="knows no byte of the prompt"):
        prompts.encode(WORDS, b"XYZ", "skip")
