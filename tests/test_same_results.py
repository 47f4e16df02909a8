"""Short runs give the results that are recorded in ``fixtures/same_results.json``, in every bit where it can be."""

from pathlib import Path

import pytest
import torch

import same_results
from same_results import Result

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Results of the runs that are tested, made now."""
    return same_results.results(same_results.chosen(False, None), tmp_path_factory.mktemp("results"))


def test_losses_scores_and_where_they_can_be_compared_all_bits_are_as_recorded(
    found: dict[str, Result],
) -> None:
    differing, _ = same_results.faults(found)
    assert differing == []


def test_bits_can_be_compared_here(found: dict[str, Result]) -> None:
    _, skipped = same_results.faults(found)
    if skipped is not None:
        pytest.skip(skipped)


def test_a_changed_loss_is_noticed_in_every_environment(found: dict[str, Result]) -> None:
    right, key = found["cps"], "train train/loss"
    changed = Result({}, {**right.numbers, key: [1.01 * value for value in right.numbers[key]]})
    assert same_results.unequal_numbers("cps", right, right, same_results.EXACT) == []
    faults = same_results.unequal_numbers("cps", right, changed, same_results.tolerance("cps"))
    assert len(faults) == 1
    assert faults[0].startswith("cps: train train/loss:")


def test_digests_know_names_values_types_and_shapes_of_tensors(tmp_path: Path) -> None:
    def digest(**tensors: torch.Tensor) -> str:
        path = tmp_path / "network.pt"
        torch.save({"state_dict": tensors, "anything": torch.ones(1)}, path)
        return same_results.network_digest(path)

    one = torch.arange(6.0)
    digests = [
        digest(a=one),
        digest(b=one),
        digest(a=one.nextafter(one + 1)),
        digest(a=one.reshape(2, 3)),
        digest(a=one.to(torch.int32)),
        digest(a=one, b=one),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(b=one, a=one.clone()) == digests[-1]
    assert digest(a=one.reshape(2, 3).t().contiguous().t()) == digests[3]
