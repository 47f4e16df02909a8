import numpy as np
import pytest
import torch
from torch import nn

from semiseg.errors import UserError
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.inference import predict
from semiseg.tasks.tiles import Tiling, predict_tiled

CPU = torch.device("cpu")
SETTINGS = EvaluatorSettings()


class Local(nn.Module):
    """Logits that depend on the neighborhood of a pixel, and on zeros beyond the border of what is seen."""

    size_multiple = 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape[-2:]))
        result: torch.Tensor = self.layers(x / 64)
        return result


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(50, 90), (33, 32), (100, 20), (31, 130), (200, 65)])
@pytest.mark.parametrize("settings", [SETTINGS, EvaluatorSettings(flip=True)])
def test_no_seam_is_left_where_the_overlap_is_wider_than_what_the_network_sees(size, settings):
    network, image = Local(), picture(*size)
    label, confidence = predict_tiled(network, image, settings, Tiling(32, 8, above=0), CPU)
    assert max(max(seen) for seen in network.seen) <= 32
    whole = predict(network, torch.from_numpy(image).permute(2, 0, 1)[None], settings)[0].max(0)
    np.testing.assert_allclose(confidence, whole.values.numpy(), atol=1e-6)
    assert (label == whole.indices.numpy()).mean() > 0.9999
    assert (label.dtype, confidence.dtype) == (np.uint8, np.float32)


def test_tiles_that_differ_pass_smoothly_into_each_other():
    class Level(nn.Module):
        """Each tile is sure of the first class to another degree."""

        size_multiple = 1

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            share = torch.tensor([0.9, 0.6][self.calls % 2])
            return torch.stack([share.log(), (1 - share).log()]).view(1, 2, 1, 1).expand(1, 2, *x.shape[-2:])

    _, confidence = predict_tiled(Level(), picture(20, 120), SETTINGS, Tiling(64, 16, above=0), CPU)
    steps = np.abs(np.diff(confidence, axis=1))
    assert 0 < steps.max() < 0.3 / 7
    assert np.ptp(confidence, axis=0).max() == 0


def test_spans_cover_the_axis_in_equal_tiles():
    tiling = Tiling(64, 16)
    for length in range(1, 700):
        spans = tiling.spans(length)
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert len({end - start for start, end in spans}) == 1
        assert max(end - start for start, end in spans) <= 64
        overlaps = [spans[i][1] - spans[i + 1][0] for i in range(len(spans) - 1)]
        assert all(overlap >= 16 for overlap in overlaps)
        assert all(spans[i][1] <= spans[i + 2][0] for i in range(len(spans) - 2))


def test_only_large_pictures_are_cut():
    tiling = Tiling(64, 16, above=10_000)
    assert not tiling.cuts(100, 100)
    assert tiling.cuts(100, 101)
    assert not Tiling(64, 16, above=0).cuts(64, 64)
    assert Tiling(64, 16, above=0).cuts(1, 65)


def test_a_tile_can_be_the_last_one():
    def stop() -> None:
        if len(network.seen) == 2:
            raise KeyboardInterrupt

    network = Local()
    with pytest.raises(KeyboardInterrupt):
        predict_tiled(network, picture(100, 100), SETTINGS, Tiling(32, 8, above=0), CPU, between=stop)
    assert len(network.seen) == 2


@pytest.mark.parametrize(("side", "overlap"), [(4, 0), (64, 17), (64, -1)])
def test_tiles_that_cannot_be(side, overlap):
    with pytest.raises(UserError, match=f"tiles of {side} pixels that overlap by {overlap}"):
        Tiling(side, overlap)
