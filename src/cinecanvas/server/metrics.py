"""What Prometheus asks for: jobs by state, workers, what was made, and how fast this process answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cinecanvas.jobs.queue import Census, Queue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The numbers of one server process, and those of the queue that all of them share."""

    def __init__(self, queue: Queue, named: Callable[[str], str]) -> None:
        """named: the dialect that a path belongs to."""
        self._registry = CollectorRegistry()
        self._registry.register(_OfQueue(queue))
        self._named = named
        labels = ("dialect", "method", "status")
        self._requests = Counter("cinecanvas_requests", "Requests that were answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "cinecanvas_request_seconds",
            "Seconds to the first byte of an answer.",
            ("dialect", "method"),
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)

    def counted(self, app: ASGIApp) -> ASGIApp:
        """The same application, its answers counted."""

        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            begun, dialect, method = time.perf_counter(), self._named(scope["path"]), scope["method"]

            async def say(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._seconds.labels(dialect, method).observe(time.perf_counter() - begun)
                    self._requests.labels(dialect, method, str(message["status"])).inc()
                await send(message)

            await app(scope, receive, say)

        return count


class _OfQueue:
    """The queue's numbers, counted when they are asked for: they are the same for every server of a database."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def collect(self) -> Iterable[Metric]:
        census: Census = self._queue.census()
        states = GaugeMetricFamily("cinecanvas_jobs", "Jobs by state.", labels=["state"])
        for state, count in census.states.items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily("cinecanvas_workers", "Workers that gave a sign of life.", value=census.workers)
        yield GaugeMetricFamily(
            "cinecanvas_oldest_queued_seconds", "Age of the oldest job that waits.", value=census.oldest
        )
        for name, value in census.made.items():
            yield CounterMetricFamily(f"cinecanvas_made_{name}", f"All {name.replace('_', ' ')} so far.", value=value)

    def describe(self) -> list[Any]:
        return []
