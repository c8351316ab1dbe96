"""Test the publisher in processes that fork, end and are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.client.publishing.streams_of_events import events_of, texts_of

if TYPE_CHECKING:
    from tests.client.publishing.conftest import OwnServer

PROGRAM = """
import os, signal, sys, threading, time
import deltaloom

def delta(number, text="x"):
    return {"type": "response.refusal.delta", "output_index": 0, "content_index": 0,
            "sequence_number": number, "delta": text}

def plain(number):
    return dict(delta(number), type="response.output_text.delta")

url = sys.argv[1]
"""


def run(server: OwnServer, program: str, *, code: int = 0, url: str | None = None) -> str:
    """Run a program with a publisher's vocabulary; return its output.

    Raises:
        AssertionError: it ended with another code, or wrote to its standard error.
    """
    arguments = (sys.executable, "-W", "error::DeprecationWarning", "-c", PROGRAM + program)
    done = subprocess.run(
        [*arguments, url or server.url], capture_output=True, check=False, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    return done.stdout


def test_end_of_the_process_sends_what_waits(own_server: OwnServer) -> None:
    """Send everything when the interpreter ends, although the events would still linger."""
    run(
        own_server,
        """
publisher = deltaloom.Publisher(url, linger=3600)
stream = publisher.stream("resp_1")
for number in range(1000):
    stream.offer([plain(number)])
""",
    )
    events = events_of(own_server.entries())["resp_1"]
    assert texts_of(events) == {("response.output_text.delta", 0): "x" * 1000}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "redis://no-such-host.invalid"])
def test_end_of_the_process_is_bounded(own_server: OwnServer, url: str) -> None:
    """End in time, and silently, with a server that does not answer."""
    began = time.monotonic()
    run(
        own_server,
        """
publisher = deltaloom.Publisher(url, exit_timeout=0.2)
publisher.stream().offer([delta(0)])
""",
        url=url,
    )
    assert time.monotonic() - began < 30


def test_offers_while_the_interpreter_ends_raise_no_error(own_server: OwnServer) -> None:
    """Accept offers of functions that run after the publisher's own, and of finalizers."""
    run(
        own_server,
        """
import atexit

class Late:
    def __del__(self):
        stream.offer([delta(5)])
        stream.end()
        publisher.close()

late = Late()
publisher = None
atexit.register(lambda: stream.offer([delta(3)]))
publisher = deltaloom.Publisher(url)
stream = publisher.stream("resp_1")
stream.offer([delta(0)])
""",
    )
    assert "resp_1" in events_of(own_server.entries())


def test_child_starts_empty_and_both_publish(own_server: OwnServer) -> None:
    """Let parent and child publish their own events only, with connections of their own."""
    output = run(
        own_server,
        """
publisher = deltaloom.Publisher(url, linger=0.3)
stream = publisher.stream("parent")
stream.offer([delta(0)])
while not publisher.counters.published: time.sleep(0.01)
stream.offer([plain(1)])
stream.offer([7])
before = publisher.counters
pid = os.fork()
if pid == 0:
    counters = publisher.counters
    assert counters.seen == 0 and counters.dropped == {}, counters
    own = publisher.stream("child")
    for number in range(100):
        own.offer([plain(number)])
    counters = publisher.close(10)
    assert (counters.seen, counters.waiting, counters.dropped) == (100, 0, {}), counters
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
stream.offer([delta(2)])
print(publisher.close(10))
""",
    )
    assert "seen=4" in output
    events = events_of(own_server.entries())
    losses = [each for each in events["parent"] if each["type"] == "deltaloom.producer.loss"]
    assert [each["dropped"] for each in losses] == [1]
    assert "deltaloom.producer.loss" not in {each["type"] for each in events["child"]}
    texts = texts_of(each for each in events["child"] if "delta" in each)
    assert texts == {("response.output_text.delta", 0): "x" * 100}


def test_fork_while_other_threads_publish(own_server: OwnServer) -> None:
    """Never deadlock in a child that was forked while other threads were offering."""
    run(
        own_server,
        """
publisher = deltaloom.Publisher(url)
running = True

def produce(which):
    stream = publisher.stream(f"parent-{which}")
    number = 0
    while running:
        stream.offer([(delta, plain)[number % 2](number)])
        number += 1

threads = [threading.Thread(target=produce, args=(which,)) for which in range(3)]
for thread in threads: thread.start()
for child in range(20):
    pid = os.fork()
    if pid == 0:
        stream = publisher.stream(f"child-{child}")
        stream.offer([delta(0)])
        os._exit(0 if publisher.close(20).published == 1 else 1)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
running = False
for thread in threads: thread.join()
counters = publisher.close(20)
assert counters.waiting == 0, counters
""",
    )
    assert {f"child-{child}" for child in range(20)} <= events_of(own_server.entries()).keys()


def test_first_connection_imports_nothing(own_server: OwnServer) -> None:
    """Import all modules with the publisher's: a fork during an import leaves half a module to the child."""
    output = run(
        own_server,
        """
import string
publisher = deltaloom.Publisher(url.replace("127.0.0.1", "localhost"))
before = set(sys.modules)
publisher.stream().offer([delta(0, "\\ud83d")])
while not publisher.counters.published: time.sleep(0.01)
print(sorted(set(sys.modules) - before))
""",
    )
    assert output == "[]\n"


def test_library_needs_redis_only_for_the_publisher() -> None:
    """Name the extra if redis-py is missing, and import everything else without it."""
    program = """
import sys
sys.modules["redis"] = None
import deltaloom, deltaloom.dialects
assert deltaloom.StreamNames().deltas == "deltaloom:deltas"
try:
    deltaloom.Publisher
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "deltaloom.Publisher needs redis-py: pip install 'deltaloom[redis]'\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_send_what_waits(own_server: OwnServer, method: str) -> None:
    """Send everything at the end of a process of multiprocessing."""
    run(
        own_server,
        f"""
import multiprocessing
publisher = deltaloom.Publisher(url, linger=3600)
publisher.stream("parent").offer([delta(0)])
from tests.client.publishing.children import publish_in_child
context = multiprocessing.get_context({method!r})
child = context.Process(target=publish_in_child, args=(url,))
child.start()
child.join()
assert child.exitcode == 0, child.exitcode
publisher.close(10)
""",
    )
    assert events_of(own_server.entries()).keys() == {"parent", "child"}


def test_sigterm_in_a_handler_that_closes(own_server: OwnServer) -> None:
    """Close from a signal handler, whatever the main thread was doing, and send what waits."""
    output = run(
        own_server,
        """
publisher = deltaloom.Publisher(url, linger=3600)
stream = publisher.stream("resp_1")

def stop(number, frame):
    counters = publisher.close(10)
    print(counters.seen, counters.published + counters.merged, counters.dropped, flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, stop)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
number = 0
while True:
    stream.offer([plain(number)])
    number += 1
    time.sleep(0)
""",
    )
    seen, sent, *dropped = output.split(maxsplit=2)
    assert int(seen) > 0
    assert int(sent) + sum(eval(dropped[0], {}).values()) == int(seen)  # noqa: S307 - our own output
    assert events_of(own_server.entries())["resp_1"]


def test_sigterm_as_an_exit(own_server: OwnServer) -> None:
    """Send what waits if SIGTERM ends the process by SystemExit, as servers do."""
    run(
        own_server,
        """
publisher = deltaloom.Publisher(url, linger=3600)
stream = publisher.stream("resp_1")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
stream.offer([plain(0)])
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
""",
        code=3,
    )
    assert "resp_1" in events_of(own_server.entries())


def test_offers_of_a_signal_handler(own_server: OwnServer) -> None:
    """Offer from a signal handler that interrupts offers of the same thread, and count each event."""
    output = run(
        own_server,
        """
publisher = deltaloom.Publisher(url)
stream, other = publisher.stream("main"), publisher.stream("handler")
calls = 0

def ring(number, frame):
    global calls
    other.offer([delta(calls), {"type": "response.in_progress", "sequence_number": 10**6 + calls}])
    calls += 1

signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for number in range(20000):
    stream.offer([(delta, plain)[number % 2](number)])
signal.setitimer(signal.ITIMER_REAL, 0)
counters = publisher.close(30)
assert counters.seen == 20000 + 2 * calls, (counters, calls)
ends = counters.published + counters.merged + sum(counters.dropped.values())
assert ends == counters.seen, counters
print(calls)
""",
    )
    assert int(output) > 10


def test_killed_process_leaves_whole_entries(own_server: OwnServer) -> None:
    """Leave nothing but whole entries behind after SIGKILL."""
    program = """
publisher = deltaloom.Publisher(url)
stream = publisher.stream("resp_1")
number = 0
while True:
    stream.offer([delta(number, f"<{number}>")])
    number += 1
"""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM + program, own_server.url])
    try:
        deadline = time.monotonic() + 30
        while len(own_server.entries()) < 3 and time.monotonic() < deadline:
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    text = texts_of(each for each in events_of(own_server.entries())["resp_1"] if "delta" in each)[
        "response.refusal.delta", 0
    ]
    assert text.startswith("<0><1>")
