"""The bank over two ranks; in a process of each, so slow."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from semiseg.distributed import over_ranks, ranks
from semiseg.methods.cac import FeatureBank

SCRIPT = """
import sys
import torch
from torch import distributed
from semiseg.distributed import over_ranks, ranks
from semiseg.methods.cac import FeatureBank

rank, folder = int(sys.argv[1]), sys.argv[2]
store = distributed.FileStore(folder + "/store", 2)
distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
assert ranks() == 2
bank = FeatureBank(2 * 2 * 3, 4)
for step in range(3):
    features = torch.full((3, 4), 10.0 * step + rank, requires_grad=True)
    bank.push(features * 1, torch.arange(3) + 100 * step + 10 * rank)
    assert not bank.features.requires_grad
columns = torch.arange(8.0).view(2, 4).t() + rank
assert not columns.is_contiguous()
joined = over_ranks(columns)
torch.save({**bank.state_dict(), "joined": joined}, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


def test_one_process_is_one_rank() -> None:
    values = torch.rand(3, requires_grad=True)
    assert ranks() == 1
    assert over_ranks(values) is values


@pytest.mark.slow
def test_the_bank_holds_the_entries_of_all_ranks_in_order(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(rank), str(tmp_path)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 0, error.decode()
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    bank = FeatureBank(12, 4)
    bank.load_state_dict({name: one[name] for name in bank.state_dict()})
    assert int(bank.filled) == 12
    assert bank.labels.tolist() == [100, 101, 102, 110, 111, 112, 200, 201, 202, 210, 211, 212]
    assert bank.features[:, 0].tolist() == [10.0] * 3 + [11.0] * 3 + [20.0] * 3 + [21.0] * 3
    assert one["joined"][:, 0].tolist() == [0, 1, 2, 3, 1, 2, 3, 4]
