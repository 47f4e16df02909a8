"""Numbers recorded from the correlation branch of CorrMatch, in double precision."""

import pytest
import torch
from wave_inputs import digest, draws, fill, logits, statistics

from semiseg.models.heads import CorrelationHead
from semiseg.pseudo.correlation import correlation_map, correlation_regions, propagated_logits

pytestmark = pytest.mark.golden("CorrMatch correlation")


def test_propagation_and_regions() -> None:
    head = CorrelationHead(8, 5)
    fill(head)
    features = (0.5 * logits(2, 256, 5, 6, 0.6, 1)).requires_grad_()
    correlation = correlation_map(torch.cat([head.conv1(features), head.conv2(features)], 1))
    result = propagated_logits(logits(2, 5, 17, 21, 0.2, 3), correlation, (5, 6))
    assert statistics(result) == pytest.approx((-0.09195387, 0.4766223986, 127.1022426), rel=1e-8)
    assert correlation.sum(1).max().item() == pytest.approx(1.314486820, rel=1e-8)
    regions = correlation_regions(correlation, draws(0, 29, 128), (5, 6), (17, 21))
    assert (regions.sum().item(), digest(regions)) == (29_460, "0a0c262b96e480c3")
    assert regions[0, :6].sum((1, 2)).tolist() == [106, 142, 153, 199, 138, 114]
    result.square().mean().backward()
    gradients = [p.grad.abs().sum().item() for p in (features, head.conv1.weight, head.conv2.weight)]
    assert gradients == pytest.approx((1.649694214, 1.438407659, 1.390358193), rel=1e-8)
