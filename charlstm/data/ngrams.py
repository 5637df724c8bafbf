"""Computes n-gram levels: the scores of tables of byte counts, to compare a network's score with.

A network that stays at the bigram level uses one byte and nothing before it: its state is lost. The
tables are smoothed by method C of Witten & Bell (1991), interpolated as in Chen & Goodman (1999,
section 2.4). Let c(x, b) be the number of times that byte b followed the context x of k bytes,
c(x) = Σ_b c(x, b), T(x) the number of different bytes that followed x, and x' = x without its first
byte. Then

    p_k(b | x) = (c(x, b) + T(x) · p_{k-1}(b | x')) / (c(x) + T(x)),    p_{-1}(b) = 1/256,

and p_k = p_{k-1} where c(x) = 0. So every byte has a probability, and each order builds on the one
below. A context and its byte are packed into one integer, and the integers are counted by sorting.
"""

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from absl import logging

from charlstm.data.cache import store
from charlstm.data.corpus import Corpus
from charlstm.data.mapped import release
from charlstm.errors import UserError
from charlstm.runtime.files import cache_folder

# At most this many bytes at the end of the training text are counted, and at most this many at the
# start of the held-out text are scored. That takes half a minute and about a gigabyte of memory.
MAX_FIT_BYTES = 2**25
MAX_SCORED_BYTES = 2**24
# For larger training texts a sample is counted: the machine may have little memory.
LARGE_BYTES = 2**28
SAMPLE_FIT_BYTES = 2**21
SAMPLE_SCORED_BYTES = 2**20
MAX_ORDER = 7  # a context and its byte are packed into 64 bits

# A score this close to a level is described as being at it.
SAME_LEVEL_BITS = 0.02

_BYTE = np.uint64(8)  # a byte's width in bits, for shifts
_CHUNK_BYTES = 2**20
_CACHE_VERSION = 1  # to be raised when the levels of a text change


@dataclass(frozen=True)
class NgramLevel:
    """Says how well one order predicts a held-out text.

    Attributes:
      order: k, the number of bytes of context.
      bits_per_byte: the mean of -log2 p_k.
      accuracy: the fraction of bytes that were the most probable one (among equals, the smallest).
      fit_bytes: the number of bytes counted.
      scored_bytes: the number of bytes predicted.
    """

    order: int
    bits_per_byte: float
    accuracy: float
    fit_bytes: int
    scored_bytes: int

    @property
    def nats(self) -> float:
        """Returns the mean of -ln p_k."""
        return self.bits_per_byte * math.log(2)


def order_name(order: int) -> str:
    """Returns the usual name of the table with `order` bytes of context."""
    names = {0: "byte frequencies", 1: "bigram", 2: "trigram"}
    return names.get(order, f"{order + 1}-gram")


def ngram_levels(
    train: np.ndarray,
    heldout: np.ndarray,
    orders: Iterable[int] = range(6),
    *,
    max_fit_bytes: int | None = None,
    max_scored_bytes: int | None = None,
) -> list[NgramLevel]:
    """Computes the levels of a text.

    Args:
      train: uint8 [N], N ≥ 1; its last `max_fit_bytes` are counted.
      heldout: uint8 [M], M ≥ 1; its first `max_scored_bytes` are scored. Byte t is predicted from
        the min(t, k) bytes before it, so no level uses bytes before the start.
      orders: the orders to compute, each at most `MAX_ORDER`.
      max_fit_bytes, max_scored_bytes: limits of time and memory; `MAX_FIT_BYTES` and
        `MAX_SCORED_BYTES` if not given.

    Returns:
      One level for each order, in ascending order.
    """
    train = train[-(max_fit_bytes or MAX_FIT_BYTES) :]
    heldout = heldout[: max_scored_bytes or MAX_SCORED_BYTES]
    wanted = set(orders)
    return [
        NgramLevel(
            order=order,
            bits_per_byte=float(-np.log2(probabilities).mean()),
            accuracy=float((guesses == heldout).mean()),
            fit_bytes=len(train),
            scored_bytes=len(heldout),
        )
        for order, (probabilities, guesses) in enumerate(predictions(train, heldout, max(wanted)))
        if order in wanted
    ]


def predictions(
    train: np.ndarray, heldout: np.ndarray, max_order: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predicts a text with each order from 0 up to `max_order`.

    Args:
      train: uint8 [N].
      heldout: uint8 [M].
      max_order: the highest order.

    Yields:
      p_k of the held-out bytes, float64 [M], and the most probable bytes, uint8 [M]. The next
      order overwrites both arrays.

    Raises:
      ValueError: `max_order` is out of range.
    """
    if not 0 <= max_order <= MAX_ORDER:
        raise ValueError(f"the highest order is {MAX_ORDER}, not {max_order}")
    probabilities = np.full(len(heldout), 1 / 256)
    guesses = np.zeros(len(heldout), np.uint8)
    table = _UNIFORM
    for order in range(max_order + 1):
        if order < len(train):
            table = _count(train, order, table)
            for start in range(order, len(heldout), _CHUNK_BYTES):
                stop = min(start + _CHUNK_BYTES, len(heldout))
                grams = _pack(heldout[start - order : stop], order)
                _refine(table, grams, probabilities[start:stop], guesses[start:stop])
        yield probabilities, guesses


def cached_ngram_levels(corpus: Corpus, split: str) -> list[NgramLevel]:
    """Returns the levels of a split of a corpus, counted on its training split, from a cache.

    They are computed once for each text. If the training split has more than `LARGE_BYTES`, only a
    sample is counted; `fit_bytes` has its size.

    Raises:
      UserError: one of the two splits has no bytes.
    """
    bounds = corpus.bounds_of("train"), corpus.bounds_of(split)
    is_large = bounds[0][1] - bounds[0][0] > LARGE_BYTES
    most = (
        (SAMPLE_FIT_BYTES, SAMPLE_SCORED_BYTES) if is_large else (MAX_FIT_BYTES, MAX_SCORED_BYTES)
    )
    key = json.dumps([_CACHE_VERSION, corpus.sha256, bounds, *most])
    path = cache_folder() / "ngrams" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return [NgramLevel(**fields) for fields in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        pass  # missing or damaged: computed below
    logging.info("counting n-grams of %s%s", corpus.name, ", a sample" if is_large else "")
    levels = ngram_levels(
        corpus.split("train"),
        corpus.split(split),
        max_fit_bytes=most[0],
        max_scored_bytes=most[1],
    )
    release(corpus.data)
    try:
        store(
            [json.dumps([dataclasses.asdict(level) for level in levels]).encode()], lambda _: path
        )
    except UserError as error:
        logging.warning("the n-gram levels are not cached: %s", error)
    return levels


def describe_position(bits_per_byte: float, levels: Iterable[NgramLevel]) -> str:
    """Says in words where a score is among the levels.

    For example "between the trigram (2.97) and the 4-gram (2.53) level" or, if it is less than
    `SAME_LEVEL_BITS` from one of them, "at the bigram level (3.62)".
    """
    worst_first = sorted(levels, key=lambda level: -level.bits_per_byte)
    nearest = min(worst_first, key=lambda level: abs(level.bits_per_byte - bits_per_byte))
    if abs(nearest.bits_per_byte - bits_per_byte) < SAME_LEVEL_BITS:
        return f"at the {_described(nearest, ' level')}"
    if not bits_per_byte <= worst_first[0].bits_per_byte:  # true for NaN too
        return f"worse than the {_described(worst_first[0], ' level')}"
    if bits_per_byte < worst_first[-1].bits_per_byte:
        return f"better than the {_described(worst_first[-1], ' level')}"
    pairs = itertools.pairwise(worst_first)
    worse, better = next(pair for pair in pairs if pair[1].bits_per_byte <= bits_per_byte)
    return f"between the {_described(worse)} and the {_described(better)} level"


def _described(level: NgramLevel, word: str = "") -> str:
    return f"{order_name(level.order)}{word} ({level.bits_per_byte:.2f})"


def _pack(text: np.ndarray, order: int) -> np.ndarray:
    """Packs every byte with the `order` bytes before it into one integer: uint64 [N - order].

    The byte is in the lowest eight bits, the byte before it in the next eight, and so on. So
    `gram >> 8` is the context, and the gram without its highest byte is that of the order below.
    """
    grams = np.zeros(len(text) - order, np.uint64)
    for place in range(order + 1):
        grams <<= _BYTE
        grams |= text[place : len(text) - order + place]
    return grams


@dataclass(frozen=True)
class _Table:
    """Holds the counts of one order: G different grams in C different contexts, ascending.

    Attributes:
      grams: uint64 [G], packed.
      context_of: int32 [G], the index of each gram's context among the C.
      probabilities: float64 [G], p_k of each gram.
      novelty: float64 [C], T / (c + T), the weight that the order below gets.
      guesses: uint8 [C], the most probable byte of each context.
      highest: float64 [C], the p_k of that byte.
    """

    grams: np.ndarray
    context_of: np.ndarray
    probabilities: np.ndarray
    novelty: np.ndarray
    guesses: np.ndarray
    highest: np.ndarray


# Below order 0: one empty gram that stands for every byte.
_UNIFORM = _Table(
    grams=np.zeros(1, np.uint64),
    context_of=np.zeros(1, np.int32),
    probabilities=np.full(1, 1 / 256),
    novelty=np.ones(1),
    guesses=np.zeros(1, np.uint8),
    highest=np.full(1, 1 / 256),
)


def _count(text: np.ndarray, order: int, below: _Table) -> _Table:
    """Makes the table of one order of a text from that of the order below."""
    every = _pack(text, order)
    every.sort()
    starts = _starts(every)
    grams, counts = every[starts], np.diff(starts, append=len(every))
    firsts = _starts(grams >> _BYTE)  # the first gram of each context
    num_followers = np.diff(firsts, append=len(grams))
    totals = np.add.reduceat(counts, firsts) + num_followers
    novelty = num_followers / totals
    context_of = np.repeat(np.arange(len(firsts), dtype=np.int32), num_followers)

    # Every gram of this order also occurs in the order below, so the search finds exact matches.
    without_oldest = grams & np.uint64(256**order - 1)
    places = np.searchsorted(below.grams, without_oldest)
    probabilities = novelty[context_of] * below.probabilities[places]
    probabilities += counts / totals[context_of]

    # The most probable byte is one that followed the context, or else the guess of the order below:
    # for bytes that did not follow it, p_k is a multiple of p_{k-1}.
    highest = np.maximum.reduceat(probabilities, firsts)
    best = np.flatnonzero(probabilities == highest[context_of])
    guesses = grams[best[_starts(context_of[best])]].astype(np.uint8)
    contexts_below = below.context_of[places[firsts]]
    rivals = below.guesses[contexts_below]
    of_rivals = novelty * below.highest[contexts_below]
    wins = (of_rivals > highest) | ((of_rivals == highest) & (rivals < guesses))
    return _Table(
        grams=grams,
        context_of=context_of,
        probabilities=probabilities,
        novelty=novelty,
        guesses=np.where(wins, rivals, guesses),
        highest=np.where(wins, of_rivals, highest),
    )


def _refine(
    table: _Table, grams: np.ndarray, probabilities: np.ndarray, guesses: np.ndarray
) -> None:
    """Turns the predictions of the order below into those of this order, in place.

    Args:
      table: the table of this order.
      grams: uint64 [M], the bytes to predict, packed with their contexts.
      probabilities: float64 [M], p_{k-1} of the bytes on entry, p_k on return.
      guesses: uint8 [M], the most probable bytes, likewise.
    """
    after = np.searchsorted(table.grams, grams)
    before = np.maximum(after - 1, 0)
    after = np.minimum(after, len(table.grams) - 1)
    # The grams of a context are adjacent. So the place for a new gram of a known context is next to
    # one of them.
    contexts = grams >> _BYTE
    is_after = table.grams[after] >> _BYTE == contexts
    is_known = is_after | (table.grams[before] >> _BYTE == contexts)
    places = table.context_of[np.where(is_after, after, before)]
    refined = np.where(
        table.grams[after] == grams,
        table.probabilities[after],
        table.novelty[places] * probabilities,
    )
    np.copyto(probabilities, refined, where=is_known)
    np.copyto(guesses, table.guesses[places], where=is_known)


def _starts(ascending: np.ndarray) -> np.ndarray:
    """Returns where each run of equal values begins, int64."""
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
