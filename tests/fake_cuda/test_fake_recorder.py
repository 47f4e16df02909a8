"""The recorder sees what it is there for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runtime import NoFakeCuda, environment

SCRIPT = """
import json
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from fake_recorder import HostValues, Recorder, make_fakes_usable

seen = {}
make_fakes_usable()
with FakeTensorMode(allow_non_fake_inputs=True), Recorder() as recorder, HostValues(recorder):
    conv = torch.nn.Conv2d(4, 4, 1, device="cuda")
    def work(name, do):
        with recorder.recording() as found:
            do()
        seen[name] = [dict(found.syncs), dict(found.copies), dict(found.layouts), found.peak]
    maps = torch.empty(2, 4, 8, 8, device="cuda")
    mask = torch.empty(8, dtype=torch.bool, device="cuda")
    work("item", lambda: float(maps.mean()))
    work("to the host", maps.cpu)
    with torch.inference_mode():
        made = maps + 1
        work("inference", made.cpu)
    work("nonzero", mask.nonzero)
    work("boolean index", lambda: maps[0, 0][mask])
    work("copy", lambda: torch.ones(3).to("cuda"))
    work("list", lambda: torch.tensor([1.0, 2.0], device="cuda"))
    work("new list", lambda: maps.new_tensor([1.0, 2.0]))
    work("free copy", lambda: torch.ones(3).to("cuda", non_blocking=True))
    work("layout", lambda: conv(maps))
    work("kept layout", lambda: conv(maps.contiguous(memory_format=torch.channels_last)))
    work("memory", lambda: [torch.empty(2**20, device="cuda") for _ in range(3)])
    work("freed memory", lambda: [torch.empty(2**20, device="cuda").shape for _ in range(3)])
    work("nothing", lambda: None)
    try:
        maps + torch.ones(8)
    except Exception as error:
        devices = str(error)
print(json.dumps([seen, devices]))
"""


def test_waits_copies_layouts_and_memory_are_seen(tmp_path: Path) -> None:
    try:
        variables = environment(tmp_path)
    except NoFakeCuda as error:
        pytest.skip(f"no fake CUDA: {error}")
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen, devices = json.loads(done.stdout)
    assert "cuda:0 and cpu" in devices
    waits = {name: list(found[0]) for name, found in seen.items() if found[0]}
    assert waits == {
        "item": ["item at backward"],
        "to the host": ["copy at backward"],
        "inference": ["copy at backward"],
        "nonzero": ["nonzero at backward"],
        "boolean index": ["boolean index at backward"],
    }
    assert [name for name, found in seen.items() if found[1]] == ["copy", "list", "new list"]
    assert [name for name, found in seen.items() if found[2]] == ["layout"]
    held = seen["nothing"][3]
    assert [seen[name][3] - held for name in ("memory", "freed memory")] == [12 * 2**20, 4 * 2**20]
