"""What the benchmarks share: timing of two ways of doing the same, and the line of the table."""

import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


def timed(function: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    """Wall time of each of several calls after one that is not counted, and what that one returned."""
    result = function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times, result


def show_results(*loggers: logging.Logger) -> None:
    """Lets this table and what the loggers of a benchmark say be seen, and of libraries only their warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for shown in (logger, *loggers):
        shown.setLevel(logging.INFO)


def log_header() -> None:
    """The first line of the table."""
    logger.info("%-38s %-28s %-28s %6s", "milliseconds", "the original's way (range)", "ours (range)", "ratio")


def log_row(name: str, theirs: list[float], ours: list[float]) -> float:
    """Logs one row of the table; returns the ratio of the medians, above 1 is faster."""
    ratio = statistics.median(theirs) / statistics.median(ours)
    cells = (f"{1000 * statistics.median(t):9.1f} ({1000 * min(t):.1f}-{1000 * max(t):.1f})" for t in (theirs, ours))
    logger.info("%-38s %-28s %-28s %6.2f", name, *cells, ratio)
    return ratio
