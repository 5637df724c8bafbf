"""Bytes become text that is right at every moment."""

from charlstm.sampling.text import decode_stream, printable


def test_characters_cut_by_pieces_are_put_together():
    text = "naïve – 漢字 🎭"
    data = text.encode()
    for size in range(1, 6):
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        assert "".join(decode_stream(pieces)) == text


def test_broken_bytes_are_shown_as_replacement_characters():
    assert "".join(decode_stream([b"a\xff", b"b\xc3"])) == "a\ufffdb\ufffd"


def test_nothing_waits_but_half_a_character():
    assert list(decode_stream([b"ab", b"\xe6\xbc", b"\xa2c"])) == ["ab", "漢c"]


def test_control_characters_do_not_reach_the_terminal():
    assert printable(b"a\x1b[2Jb\n\tc\x00\xff") == "a\ufffd[2Jb\n\tc\ufffd\ufffd"
