"""The states of prompts that were read: the longest known beginning, within a limit."""

import numpy as np

from charlstm.serving.prompt_cache import LEAST_LENGTH, Column, PromptCache


def column(number):
    part = np.full(50, number, np.float32)
    return Column([part], [part], part, number)


SIZE = column(0).num_bytes


def test_the_longest_known_beginning_is_found_and_the_least_recently_used_is_forgotten():
    draws = np.random.default_rng(0)
    room = 12
    cache = PromptCache(room * SIZE + SIZE // 2)
    known = {}  # by kind and text, the most recently used last
    texts = [draws.integers(0, 2, LEAST_LENGTH).astype(np.uint8) for _ in range(2)]
    found_any = 0
    for number in range(3000):
        begin = texts[draws.integers(len(texts))]
        size = draws.integers(0, 8)
        text = np.concatenate([begin, draws.integers(0, 2, size).astype(np.uint8)])
        kind = int(draws.integers(2))
        if draws.random() < 0.5:
            cache.put(text, column(number), kind)
            known.pop((kind, text.tobytes()), None)
            known[kind, text.tobytes()] = number
            for old in list(known)[: max(0, len(known) - room)]:
                del known[old]
        else:
            beginnings = [k for k in known if k[0] == kind and text.tobytes().startswith(k[1])]
            found = cache.longest(text, kind)
            if not beginnings:
                assert found is None
            else:
                key = max(beginnings, key=lambda k: len(k[1]))
                assert found[0] == len(key[1]) and found[1].num_read == known[key]
                known[key] = known.pop(key)  # it was used
                found_any += 1
        assert cache.num_bytes == SIZE * len(known) <= room * SIZE
    assert found_any > 300


def test_what_is_too_short_or_too_large_is_not_kept():
    text = np.zeros(LEAST_LENGTH, np.uint8)
    for cache, kept in ((PromptCache(SIZE), text[1:]), (PromptCache(SIZE - 1), text)):
        cache.put(kept, column(1))
        assert cache.longest(text) is None and cache.num_bytes == 0
    nothing = PromptCache(0)
    nothing.put(text, column(1))
    assert not nothing.keeps and nothing.longest(text) is None
    cache = PromptCache(SIZE)
    cache.put(text, column(1))
    assert cache.keeps and cache.longest(text)[0] == LEAST_LENGTH
