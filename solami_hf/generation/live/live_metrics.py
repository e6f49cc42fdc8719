"""Counts of `solami serve` in Prometheus' text format, version 0.0.4."""

import threading
from collections import Counter

PREFIX = "solami_"
# name -> (kind, what it counts)
_KNOWN = {
    "connections": ("gauge", "WebSocket connections that are open."),
    "waiting": ("gauge", "Connections that wait for a place."),
    "turns_total": ("counter", "Turns by how they ended."),
    "errors_total": ("counter", "Errors that clients were told, by code."),
    "seconds": ("summary", "Seconds from the end of a user's turn to a part of the answer."),
}


class LiveMetrics:
    """Counts that any thread may add to."""

    def __init__(self):
        self._values, self._lock = Counter(), threading.Lock()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to a count, e.g. `add("turns_total", outcome="valid")`."""
        told = ",".join(f'{key}="{value}"' for key, value in labels.items())
        with self._lock:
            self._values[name, f"{{{told}}}" if told else ""] += amount

    def observe(self, part: str, seconds: float) -> None:
        """Adds a latency."""
        self.add("seconds_sum", seconds, part=part)
        self.add("seconds_count", part=part)

    def text(self) -> str:
        """All counts, as a scraper reads them."""
        with self._lock:
            values = sorted(self._values.items())
        lines = []
        for name, (kind, told) in _KNOWN.items():
            lines += [f"# HELP {PREFIX}{name} {told}", f"# TYPE {PREFIX}{name} {kind}"]
            parts = (f"{name}_sum", f"{name}_count") if kind == "summary" else (name,)
            found = [f"{PREFIX}{key}{labels} {value:g}" for (key, labels), value in values if key in parts]
            lines += found or ([f"{PREFIX}{name} 0"] if kind == "gauge" else [])
        return "\n".join(lines) + "\n"
