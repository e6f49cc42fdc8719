"""What the tests of malformed input share."""

import signal
import tracemalloc

import pytest

SECONDS, MEGABYTES = 20, 300


@pytest.fixture
def bounded():
    """Stops what computes too long, whatever else the machine does, and fails what took too much memory."""

    def stop(*_):
        raise TimeoutError(f"took more than {SECONDS} seconds of the processor")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
    assert peak < MEGABYTES << 20
