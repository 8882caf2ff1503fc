"""Waiting on the main thread for signals, and for what other threads put in."""

import os
import queue
import signal
import threading

import pytest

from discovery.signals import SignalQueue


def test_signals_and_numbers_come_in_order() -> None:
    """What arrived first is returned first, and an empty queue says so after the timeout."""
    with SignalQueue(signal.SIGUSR1, signal.SIGUSR2) as signals:
        signals.put(0)
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)
        assert [signals.get(1.0) for _ in range(3)] == [0, signal.SIGUSR2, signal.SIGUSR1]
        with pytest.raises(queue.Empty):
            signals.get(timeout=0.01)
        with pytest.raises(queue.Empty):
            signals.get(timeout=-1.0)


@pytest.mark.parametrize("wake", ["put", "signal to the process", "signal to another thread"])
def test_a_waiter_is_woken(wake: str) -> None:
    """By another thread, and by a signal, also if the kernel delivers it to another thread."""
    with SignalQueue(signal.SIGUSR1) as signals:

        def send() -> None:
            if wake == "put":
                signals.put(signal.SIGUSR1)
            elif wake == "signal to the process":
                os.kill(os.getpid(), signal.SIGUSR1)
            else:
                signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

        timer = threading.Timer(0.05, send)
        timer.start()
        assert signals.get(timeout=10.0) == signal.SIGUSR1
        timer.join()


def test_handlers_are_restored() -> None:
    """After the block the signals do what they did before, and so does the wakeup socket."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        with SignalQueue(signal.SIGUSR1), SignalQueue(signal.SIGUSR1) as inner:
            signal.raise_signal(signal.SIGUSR1)
            assert inner.get(1.0) == signal.SIGUSR1
        signal.raise_signal(signal.SIGUSR1)
        assert heard == [signal.SIGUSR1]
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        assert wakeup == -1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_queue_of_no_signals_leaves_nothing_behind() -> None:
    """It sets the wakeup socket too, and restores it."""
    with SignalQueue() as signals:
        signals.put(1)
        assert signals.get(1.0) == 1
    assert signal.set_wakeup_fd(-1) == -1


def test_a_fork_does_what_it_did_before() -> None:
    """A signal ends a forked child as if there were no queue."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # which ends a process
    try:
        with SignalQueue(signal.SIGUSR1):
            ready, tell = os.pipe()
            child = os.fork()
            if not child:
                os.write(tell, b"!")
                for _ in range(6000):  # short waits: a signal just before a long one would not end it
                    threading.Event().wait(0.01)
                os._exit(0)
            os.read(ready, 1)  # the interpreter drops a signal that arrives while it forks
            os.kill(child, signal.SIGUSR1)
            _, status = os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGUSR1
