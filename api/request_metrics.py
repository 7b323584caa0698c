"""Requests as Prometheus counts them: by route and status class, with how long they took."""

from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector

DURATION_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Requests:
    """Counts requests by route and status class, with how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "fallow_request_seconds",
            "Duration of API requests; long polls and streams included.",
            ("route", "status"),
            registry=registry,
            buckets=DURATION_BUCKETS_S,
        )
        self._children: dict[tuple[str, int], Any] = {}  # one for each route and class: a look-up costs more

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one answer; `route` is its pattern, never a path with ids."""
        name = route, status // 100
        child = self._children.get(name)
        if child is None:
            child = self._children[name] = self._seconds.labels(route, f"{status // 100}xx")
        child.observe(seconds)


def new_registry() -> CollectorRegistry:
    """Return a registry with the process's own figures: memory, processor time, open files, collector."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
