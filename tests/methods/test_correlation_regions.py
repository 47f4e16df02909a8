"""Correlation matching beyond its golden numbers."""

import pytest
import torch
from torch import Tensor

from semiseg.pseudo.correlation import correlation_map, correlation_regions, draw_rows, propagated_logits


def embeddings(n: int = 2, classes: int = 3, h: int = 4, w: int = 5) -> Tensor:
    return torch.randn(n, 2 * classes, h, w, generator=torch.Generator().manual_seed(0))


def test_rows_are_a_softmax_of_scaled_products() -> None:
    values = embeddings()
    found = correlation_map(values)
    assert found.shape == (2, 20, 20)
    assert torch.allclose(found.sum(2), torch.ones(2, 20))
    first, second = values[1, :3, 2, 1], values[1, 3:].flatten(1)
    assert torch.allclose(found[1, 11], (first @ second / 3**0.5).softmax(0))
    assert correlation_map(values.bfloat16()).dtype == torch.float32


def test_ways_to_spread_logits() -> None:
    correlation = correlation_map(embeddings())
    logits = torch.randn(2, 4, 4, 5, generator=torch.Generator().manual_seed(1))
    flat = logits.flatten(2)
    scatter, columns, gather = (
        propagated_logits(logits, correlation, (4, 5), spread).flatten(2)
        for spread in ("scatter", "columns", "gather")
    )
    assert torch.equal(scatter, propagated_logits(logits, correlation, (4, 5)).flatten(2))
    for position in (0, 7, 19):
        given = sum(flat[:, :, i] * correlation[:, i, position, None] for i in range(20))
        assert torch.allclose(scatter[:, :, position], given, atol=1e-6)
        weights = correlation[:, :, position].sum(1, keepdim=True)
        assert torch.allclose(columns[:, :, position], given / weights, atol=1e-5)
        taken = sum(flat[:, :, j] * correlation[:, position, j, None] for j in range(20))
        assert torch.allclose(gather[:, :, position], taken, atol=1e-6)


@pytest.mark.parametrize("spread", ["columns", "gather"])
def test_means_keep_constant_logits(spread: str) -> None:
    constant = torch.tensor([1.0, -2.0, 3.0])[None, :, None, None].expand(2, -1, 9, 11)
    found = propagated_logits(constant, correlation_map(embeddings()), (4, 5), spread)  # type: ignore[arg-type]
    assert torch.allclose(found, constant[:, :, :4, :5], atol=1e-5)


def test_gradient_reaches_the_correlation_alone() -> None:
    values, logits = embeddings().requires_grad_(), torch.randn(2, 4, 17, 21, requires_grad=True)
    propagated_logits(logits, correlation_map(values), (4, 5)).square().sum().backward()
    assert values.grad is not None
    assert values.grad.abs().sum() > 0
    assert logits.grad is None


def test_what_does_not_fit_is_refused() -> None:
    correlation, logits = correlation_map(embeddings()), torch.zeros(2, 4, 8, 8)
    with pytest.raises(ValueError, match="not that of a map of 5x5"):
        propagated_logits(logits, correlation, (5, 5))
    with pytest.raises(ValueError, match="scatter, columns, gather"):
        propagated_logits(logits, correlation, (4, 5), "rows")  # type: ignore[arg-type]


def test_a_region_is_what_exceeds_half_of_the_range() -> None:
    row = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.2, 0.4])
    regions = correlation_regions(row.expand(1, 6, 6), torch.tensor([0, 5]), (2, 3), (2, 3))
    assert regions.shape == (1, 2, 2, 3)
    assert regions.dtype == torch.bool
    assert regions[0, 0].tolist() == regions[0, 1].tolist() == [[False] * 3, [False, False, True]]
    larger = correlation_regions(row.expand(1, 6, 6), torch.tensor([0]), (2, 3), (9, 13))
    assert 0 < larger.sum() < 9 * 13 / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(4, 5), (33, 41), (7, 64)])
def test_constant_rows_have_no_region(dtype: torch.dtype, size: tuple[int, int]) -> None:
    """Up to rounding: a resize alone makes 0.05 to numbers that differ in the last digits."""
    values = embeddings().to(dtype)
    values[:, :3, 0, 0] = 0  # alike to everything
    values[1, 3:] = values[1, 3:, :1, :1]  # everything is alike
    noisy = correlation_map(values) * (1 + 8 * torch.finfo(dtype).eps * torch.rand(20, 20, dtype=dtype))
    regions = correlation_regions(noisy, torch.arange(20), (4, 5), size)
    assert not regions[0, 0].any()
    assert not regions[1].any()
    assert regions[0, 1:].flatten(1).any(1).all()


def test_rows_are_drawn_without_the_last_position() -> None:
    def drawn(last: bool) -> Tensor:
        return draw_rows(torch.Generator().manual_seed(0), 6, 4000, last=last)

    assert drawn(False).unique().tolist() == [0, 1, 2, 3, 4]
    assert drawn(True).unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(drawn(False), drawn(False))
