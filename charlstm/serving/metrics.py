"""Counts requests and reports them, with the engines' counts, to Prometheus."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from charlstm.serving.engine import Engine

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_COUNTED = {  # fields of `Counts` that only grow
    "bytes_read": "Bytes of prompts that were read.",
    "bytes_remembered": "Bytes of prompts whose state was still known.",
    "bytes_made": "Bytes that were made.",
    "chunks": "Calls of the decode loop.",
    "chunk_seconds": "Seconds spent in the decode loop.",
}
_PRESENT = {
    "active": "Texts that are being made.",
    "width": "Columns of the batch.",
    "cache_bytes": "Memory of the states of prompts.",
}


class Metrics:
    """Counts requests, and reads the engines' counts when it is asked.

    Args:
      engines: returns the engines by the names of their models.
    """

    def __init__(self, engines: Callable[[], Mapping[str, Engine]]):
        self._registry = CollectorRegistry()
        self._registry.register(_Engines(engines))
        self.requests = Counter(
            "charlstm_requests",
            "Requests for completions, by the status of their answer.",
            ["status"],
            registry=self._registry,
        )
        self.first_byte = Histogram(
            "charlstm_first_byte_seconds",
            "Seconds from a request to the first byte of its stream.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.whole = Histogram(
            "charlstm_request_seconds",
            "Seconds from a request to the end of its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Engines(Collector):
    def __init__(self, engines: Callable[[], Mapping[str, Engine]]):
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """Yields the counts of all engines."""
        for kind, described in ((CounterMetricFamily, _COUNTED), (GaugeMetricFamily, _PRESENT)):
            for name, meaning in described.items():
                family = kind(f"charlstm_{name}", meaning, labels=["model"])
                for model, engine in self._engines().items():
                    family.add_metric([model], float(getattr(engine.counts, name)))
                yield family
        waiting = GaugeMetricFamily("charlstm_waiting", "Texts that wait.", labels=["model"])
        for model, engine in self._engines().items():
            waiting.add_metric([model], float(engine.num_waiting))
        yield waiting
