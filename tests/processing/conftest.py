"""What the tests of malformed input share."""

import signal
import time
import tracemalloc

import pytest

SECONDS, MEGABYTES = 20, 300


@pytest.fixture
def bounded():
    """Stops what takes too long, and fails what took too long or too much memory."""

    def stop(*_):
        raise TimeoutError(f"took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    tracemalloc.start()
    start = time.perf_counter()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - start < SECONDS
    assert peak < MEGABYTES << 20
