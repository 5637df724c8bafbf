"""The registered corpora, or what a text is like: bytes, splits, n-gram levels.

  charlstm corpora
  charlstm corpora describe shakespeare
  charlstm corpora describe my.txt --valid_size=0.1 --json

A corpus is a registered name, a file, a folder, a glob pattern, or - for standard input. Its n-gram
levels say what tables of byte counts reach on its validation split.
"""

import dataclasses
import json
from collections.abc import Sequence

from absl import flags

from charlstm.commands import _flags
from charlstm.data.corpora import open_corpus
from charlstm.data.corpus import Alphabet, Corpus, split_bounds
from charlstm.data.ngrams import NgramLevel, cached_ngram_levels, order_name
from charlstm.data.registry import CORPORA
from charlstm.errors import UserError

_JSON = flags.DEFINE_boolean("json", False, "Print JSON.")
_VALID_SIZE = _flags.define_number(
    "valid_size", 0.05, "Held out for validation: a share of the text (below 1) or bytes."
)
_TEST_SIZE = _flags.define_number(
    "test_size", 0.05, "Held out for the test: a share of the text (below 1) or bytes."
)


def main(argv: Sequence[str]) -> None:
    """Lists, or describes, as the arguments say."""
    match argv[1:]:
        case []:
            _list()
        case ["describe", spec]:
            _describe(spec)
        case _:
            raise UserError(
                "wrong arguments: `charlstm corpora` lists, `charlstm corpora describe CORPUS` "
                "describes one"
            )


def _list() -> None:
    rows = [
        {
            "name": corpus.name,
            "num_bytes": corpus.digest.num_bytes,
            "is_cached": corpus.is_cached,
            "title": corpus.title,
            "license": corpus.license,
            "source": corpus.source,
        }
        for corpus in CORPORA.values()
    ]
    if _JSON.value:
        print(json.dumps(rows))
        return
    table = [("name", "bytes", "cached", "text", "license")]
    for row in rows:
        cached = "yes" if row["is_cached"] else "no"
        name, title, license = str(row["name"]), str(row["title"]), str(row["license"])
        table.append((name, f"{row['num_bytes']:,}", cached, title, license))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, num_bytes, *rest in table:
        cells = [name.ljust(widths[0]), num_bytes.rjust(widths[1])]
        cells += [cell.ljust(width) for cell, width in zip(rest, widths[2:], strict=True)]
        print("  ".join(cells).rstrip())


def _describe(spec: str) -> None:
    source = open_corpus(spec)
    bounds = split_bounds(len(source.data), _VALID_SIZE.value, _TEST_SIZE.value)
    corpus = Corpus(source.name, source.data, source.sha256, bounds)
    start, stop = bounds.valid
    levels = cached_ngram_levels(corpus, "valid") if start < stop else []
    facts = {
        "name": source.name,
        "num_bytes": len(source.data),
        "num_distinct_bytes": Alphabet.of("corpus", source.data).size,
        "is_utf8": corpus.is_utf8(),
        "sha256": source.sha256,
        "license": source.license,
        "source": source.source,
        "splits": bounds._asdict(),
    }
    if _JSON.value:
        facts["ngram_levels"] = [
            {"name": order_name(level.order), "nats": level.nats, **dataclasses.asdict(level)}
            for level in levels
        ]
        print(json.dumps(facts))
        return
    kind = "UTF-8 text" if facts["is_utf8"] else "not UTF-8 text"
    sizes = {name: f"{stop - start:,}" for name, (start, stop) in bounds._asdict().items()}
    print(f"name      {source.name}")
    print(f"bytes     {len(source.data):,}, {facts['num_distinct_bytes']} of 256 occur, {kind}")
    print(f"sha256    {source.sha256}")
    print(f"license   {source.license}")
    print(f"source    {source.source}")
    print("splits    " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    named = CORPORA.get(spec)
    if named and named.customary_sizes:
        valid, test = named.customary_sizes
        print(f"          (customary: --valid_size={valid} --test_size={test})")
    _print_levels(levels)


def _print_levels(levels: list[NgramLevel]) -> None:
    if not levels:
        print("\nno n-gram levels: nothing is held out for validation")
        return
    fit, scored = levels[0].fit_bytes, levels[0].scored_bytes
    print(f"\nn-gram levels (counted on the last {fit:,} bytes of train,")
    print(f"scored on the first {scored:,} of valid)")
    print(f"{'order':>5}  {'name':<16}{'bits/byte':>10}{'nats':>9}{'accuracy':>10}")
    for level in levels:
        print(
            f"{level.order:>5}  {order_name(level.order):<16}{level.bits_per_byte:>10.3f}"
            f"{level.nats:>9.3f}{level.accuracy:>10.1%}"
        )
