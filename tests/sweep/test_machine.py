"""Jobs that run at the same time share the cores and the GPUs."""

from pathlib import Path

import pytest

from semiseg.cores import loading_processes
from semiseg.sweep.job import Job
from semiseg.sweep.machine import cuda_devices, job_environment


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("semiseg.config.environment.GIVEN_THREADS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SEMISEG_CORES", raising=False)


def threads(n_jobs: int, workers: int = 0) -> int:
    job = Job(Path("x"), (), num_workers=workers)
    return int(job_environment(job, 0, n_jobs, [])["OMP_NUM_THREADS"])


def test_cores_are_divided() -> None:
    assert [threads(n_jobs) for n_jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    assert [threads(n_jobs, workers=2) for n_jobs in (1, 2, 4)] == [6, 2, 1]


@pytest.mark.parametrize(("device", "devices"), [("auto", ["0", "1"]), ("cuda:1", [])])
def test_jobs_on_gpus_share_the_cores_for_loading_too(
    device: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(24)))
    monkeypatch.setattr("semiseg.cores.free_shared_memory", lambda: 2**40)
    for n_jobs, processes, threads in ((1, 16, 8), (2, 10, 2), (12, 1, 1)):
        given = job_environment(Job(Path("x"), (), device=device), 0, n_jobs, devices)
        assert int(given["OMP_NUM_THREADS"]) == threads
        with monkeypatch.context() as patch:
            patch.setenv("SEMISEG_CORES", given.get("SEMISEG_CORES", ""))
            assert loading_processes(None, on_cuda=True) == processes
            assert loading_processes(None, on_cuda=False) == 0


def test_a_number_that_the_user_has_set_is_kept_where_there_are_cores_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("semiseg.config.environment.GIVEN_THREADS", "3")
    assert [threads(n_jobs) for n_jobs in (1, 2, 4)] == [3, 3, 2]


def test_gpus_are_dealt_out() -> None:
    def gpu(device: str, slot: int, devices: list[str]) -> str | None:
        job = Job(Path("x"), (), device=device)
        return job_environment(job, slot, 4, devices).get("CUDA_VISIBLE_DEVICES")

    assert [gpu("auto", slot, ["4", "GPU-a"]) for slot in range(4)] == ["4", "GPU-a"] * 2
    assert gpu("cuda", 1, ["0", "1"]) == "1"
    assert gpu("cuda:1", 0, ["0", "1"]) is None
    assert gpu("cpu", 0, ["0"]) is None
    assert gpu("auto", 0, []) is None


@pytest.mark.parametrize(("told", "names"), [("", []), ("-1", []), ("2, GPU-a", ["2", "GPU-a"])])
def test_gpus_that_the_user_has_chosen(told: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert cuda_devices() == names
