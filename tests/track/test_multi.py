import pytest

from semiseg.track.multi import MultiTracker


class Recorder:
    def __init__(self, fails=False):
        self.calls = []
        self.fails = fails

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            if self.fails and name == "close":
                raise OSError("disk full")

        return call


def test_everything_reaches_all_in_order(sample):
    trackers = [Recorder(), Recorder()]
    multi = MultiTracker(trackers)
    multi.start_stage("fit", 0, 10)
    multi.progress(1)
    multi.log({"train/loss": 1.0}, 1)
    multi.images("val/samples", [sample], 1)
    multi.summary({"miou": 0.5})
    multi.close("done")
    expected = ["start_stage", "progress", "log", "images", "summary", "close"]
    assert [[call[0] for call in tracker.calls] for tracker in trackers] == [expected, expected]


def test_close_reaches_all_even_when_one_fails():
    trackers = [Recorder(fails=True), Recorder()]
    with pytest.raises(OSError, match="disk full"):
        MultiTracker(trackers).close("failed")
    assert trackers[1].calls == [("close", "failed")]
