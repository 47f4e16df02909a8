"""Presets on fake CUDA tensors, in their networks, crops and batches; docs/gpu.md explains the check.

All presets of the published experiments: ``SEMISEG_FAKE_CUDA=all pytest tests/fake_cuda``.
"""

import os
from collections.abc import Mapping

import pytest
import torch
from fake_limits import LAYOUTS, SYNCS, Limit
from fake_presets import COVERING, PRESETS, Case, measure, minor, read_recorded, title
from fake_runtime import NoFakeCuda

TOLERANCE = 0.05
"""Share by which a peak may differ from the recorded one."""

CHOSEN = PRESETS if os.environ.get("SEMISEG_FAKE_CUDA") == "all" else sorted(COVERING)
# The first test waits for all presets, on a busy machine for long.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Measure the presets of the selected tests in one process, whose imports take longer than a preset."""
    asked = [each for each in request.session.items if each.path == request.path]
    presets = {each.callspec.params["preset"] for each in asked if hasattr(each, "callspec")}
    try:
        return measure(sorted(presets), tmp_path_factory.mktemp("fake"))
    except NoFakeCuda as error:
        pytest.skip(f"no fake CUDA: {error}")
    except RuntimeError as error:
        # Another version may ask the runtime for what it lacks.
        if minor(torch.__version__) == read_recorded()["torch"]:
            raise
        pytest.skip(f"no fake CUDA with torch {torch.__version__}: {error}")


def of(cases: list[Case], preset: str) -> list[Case]:
    found = [case for case in cases if case["preset"] == preset]
    assert any(case["kind"] == "step" for case in found), "no fit was measured"
    return found


def beyond(case: Case, seen: Mapping[str, int], limits: tuple[Limit, ...]) -> list[str]:
    """Name the places of a case that no limit allows, or not so often."""
    allowed = {
        limit.place: limit.most
        for limit in limits
        if case["kind"] in limit.kinds and (not limit.methods or case["method"] in limit.methods)
    }
    return [
        f"{title(case)}: {count} times {place}, allowed are {allowed.get(place, 0)}"
        for place, count in seen.items()
        if count > allowed.get(place, 0)
    ]


@pytest.mark.parametrize("preset", CHOSEN)
def test_everything_runs_on_the_device(cases: list[Case], preset: str) -> None:
    assert [case["error"] for case in of(cases, preset) if "error" in case] == []


@pytest.mark.parametrize("preset", CHOSEN)
def test_the_host_waits_only_where_it_has_to(cases: list[Case], preset: str) -> None:
    assert [line for case in of(cases, preset) for line in beyond(case, case["syncs"], SYNCS)] == []


@pytest.mark.parametrize("preset", CHOSEN)
def test_a_step_copies_to_the_device_without_waiting(cases: list[Case], preset: str) -> None:
    assert [case["copies"] for case in of(cases, preset) if case["kind"] == "step" and case["copies"]] == []


@pytest.mark.parametrize("preset", CHOSEN)
def test_convolutions_get_the_layout_of_the_run(cases: list[Case], preset: str) -> None:
    found = [case for case in of(cases, preset) if case["channels_last"]]
    assert [line for case in found for line in beyond(case, case["layouts"], LAYOUTS)] == []


@pytest.mark.parametrize("preset", CHOSEN)
def test_memory_is_as_recorded(cases: list[Case], preset: str) -> None:
    recorded = read_recorded()
    if minor(torch.__version__) != recorded["torch"]:
        pytest.skip(f"recorded with torch {recorded['torch']}; other versions allocate otherwise")
    peaks = {title(case): case["peak"] for case in of(cases, preset)}
    command = "python tests/fake_cuda/fake_presets.py record"
    assert peaks == pytest.approx(recorded["peaks"].get(preset), rel=TOLERANCE), f"see {command}"


def test_a_case_beyond_its_limits_is_named() -> None:
    limits = (Limit("item at a.py f", 1, "needed", ("step",), ("cps",)),)
    case = {"kind": "step", "name": "train", "method": "cps"}
    assert beyond(case, {"item at a.py f": 1}, limits) == []
    assert beyond(case, {"item at a.py f": 2}, limits) == [
        "step train: 2 times item at a.py f, allowed are 1"
    ]
    for other in ({**case, "method": "dmt"}, {**case, "kind": "label"}):
        assert len(beyond(other, {"item at a.py f": 1}, limits)) == 1
