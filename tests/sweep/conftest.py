"""A method that breaks on request."""

from pathlib import Path

import pytest

FRAGILE = """
import os
import signal
import time
from pathlib import Path

from semiseg.data.epochs import labeled
from semiseg.methods.supervised import Supervised, SupervisedLearner


class Fragile(Supervised):
    def run(self, lab):
        streams = labeled(lab.split.labeled, lab.augment.weak, lab.trainer.batch_size, lab.budget)
        learner = Breaking(lab.network("model"))
        learner.name = f"{lab.seed} {lab.split.name}"
        return lab.fit("train", learner, streams).selected


class Breaking(SupervisedLearner):
    def after_step(self, progress):
        if progress.iteration == 5:
            for word in ("fail", "kill", "slow"):
                if Path(word).exists() and Path(word).read_text() in (self.name, "all"):
                    getattr(self, word)()

    def fail(self):
        raise ValueError("made to fail")

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def slow(self):
        Path("slow-" + self.name.replace("/", "of")).touch()
        while Path("slow").exists():
            time.sleep(0.01)
"""


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``method=fragile``.

    It fails, is killed or waits where a file ``fail``, ``kill`` or ``slow`` holds the seed and split of a run, or
    "all"; a run that waits leaves a file ``slow-...`` and goes on when ``slow`` is gone.
    """
    monkeypatch.chdir(tmp_path)
    Path("fragile.py").write_text(FRAGILE)
    Path("method").mkdir()
    Path("method/fragile.yaml").write_text("name: fragile\n_target_: fragile.Fragile\n")
    return tmp_path
