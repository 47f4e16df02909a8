import io
import time

import pytest

from semiseg.progress_bar import progress


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    now = iter([0.0, 10.0, 30.0, 45.0, 70.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with progress("predict", 4) as advance:
        for _ in range(4):
            advance()
    assert capsys.readouterr().err == "predict: 2 of 4, 0:00:30 left\n"


def test_a_bar_on_a_terminal(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress("predict", 2) as advance:
        advance()
        advance()
    assert "2/2" in screen.getvalue()


def test_an_error_passes(capsys):
    with pytest.raises(ValueError, match="mine"), progress("predict", 1):
        raise ValueError("mine")
    assert capsys.readouterr().err == ""
