"""How far a long piece of work is said to be."""

import io

import pytest

pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from gradtail.torch import countdown as module
from gradtail.torch.countdown import Countdown, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def written(monkeypatch, stream, total, shown=None, second=1.0):
    """All that is written while each piece takes so long."""
    now = [0.0]
    monkeypatch.setattr(module.sys, "stderr", stream)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    with Countdown("gradients", total, shown) as countdown:
        for _ in range(total):
            now[0] += second
            countdown.advance()
    return stream.getvalue()


def test_a_terminal_has_one_line_that_is_rewritten(monkeypatch):
    text = written(monkeypatch, Terminal(), 3)
    lines = ["gradients: 1/3, 0:02 left", "gradients: 2/3, 0:01 left", "gradients: 3 done in 0:03"]
    assert text == "".join(f"\r{line}\x1b[K" for line in lines) + "\n"
    assert written(monkeypatch, Terminal(), 3, second=0.11).count("\r") == 2  # not more often than is read
    assert written(monkeypatch, Terminal(), 3, shown=False) == ""
    assert written(monkeypatch, Terminal(), 0) == ""


def test_elsewhere_a_tenth_of_the_work_has_a_line_if_asked_for(monkeypatch):
    lines = written(monkeypatch, io.StringIO(), 400, shown=True).splitlines()
    assert len(lines) == 10
    assert (lines[0], lines[-1]) == ("gradients: 40/400, 6:00 left", "gradients: 400 done in 6:40")
    assert len(written(monkeypatch, io.StringIO(), 3, shown=True).splitlines()) == 3
    assert written(monkeypatch, io.StringIO(), 400) == ""


def test_what_was_done_earlier_takes_no_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    countdown = Countdown("eigenvalues", 12)
    countdown.skip(8)
    now[0] = 5.0
    countdown.advance()
    assert countdown.text(now[0]) == "eigenvalues: 9/12, 0:15 left"


def test_before_the_first_piece_a_terminal_says_what_goes_on(monkeypatch):
    now = [0.0]
    stream = Terminal()
    monkeypatch.setattr(module.sys, "stderr", stream)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    with Countdown("eigenvalues", 3) as countdown:
        for products in range(1, 5):
            now[0] += 0.15
            countdown.busy(f"{products} products")
    assert stream.getvalue() == ("\reigenvalues: 0/3, 2 products\x1b[K\reigenvalues: 0/3, 4 products\x1b[K\n")


def test_clock():
    assert [clock(s) for s in (0, 59.4, 59.6, 3599, 3600, 90061)] == [
        "0:00", "0:59", "1:00", "59:59", "1:00:00", "25:01:01",
    ]  # fmt: skip
