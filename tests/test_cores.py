"""How many processes load the batches of a run that does not say it."""

import logging
from collections import namedtuple

import pytest

from semiseg.cores import loading_processes, warn_of_little_shared_memory

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(request.param, 0, request.param))


@pytest.mark.parametrize("shared", [8 * 2**30], indirect=True)
@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 1), (3, 1), (8, 6), (18, 16), (128, 16)])
@pytest.mark.usefixtures("shared")
def test_a_gpu_is_fed_by_the_cores_that_training_leaves(cores: int, processes: int) -> None:
    assert loading_processes(None, on_cuda=True, cores=cores) == processes
    assert loading_processes(None, on_cuda=False, cores=cores) == 0
    assert [loading_processes(number, on_cuda=True, cores=cores) for number in (0, 40)] == [0, 40]


@pytest.mark.parametrize("shared", [64 * 2**20], indirect=True)
@pytest.mark.usefixtures("shared")
def test_a_container_without_shared_memory_loads_in_the_main_process_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    assert loading_processes(None, on_cuda=True, cores=8) == 0
    assert loading_processes(4, on_cuda=True, cores=8) == 4
    for number, on_cuda in ((4, True), (None, False)):
        warn_of_little_shared_memory(number, on_cuda)
    assert not caplog.records
    warn_of_little_shared_memory(None, on_cuda=True)
    assert "only 64 MiB" in caplog.text
    assert "--shm-size" in caplog.text
    assert "trainer.num_workers" in caplog.text
