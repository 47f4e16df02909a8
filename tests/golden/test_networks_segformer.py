"""Numbers of the SegFormer of Hugging Face's transformers 5.24 in double precision.

Its epsilons were set as in NVlabs' code: 1e-6, in the patches and in the reduction 1e-5.
"""

from functools import partial

import pytest
import torch
from unimatch_inputs import fill, images

from semiseg.models.bundle import segmentation_model
from semiseg.models.mit import MixTransformer
from semiseg.models.segformer import SegFormer
from semiseg.models.segmodel import InputConvention

pytestmark = pytest.mark.golden("SegFormer network")


def test_outputs() -> None:
    model = segmentation_model(MixTransformer("b0"), partial(SegFormer, channels=256), 7).double().eval()
    fill(model)
    # The images are normalized.
    model.set_convention(InputConvention("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    with torch.no_grad():
        maps = model.encode(images(2, 65, 81, 1))
        logits = model.classify(model.decode(maps), (65, 81))
    assert [tuple(each.shape[1:]) for each in maps] == [(32, 17, 21), (64, 9, 11), (160, 5, 6), (256, 3, 3)]
    deviations = [each.std().item() for each in maps]
    assert deviations == pytest.approx((1.01394587084, 1.01602623363, 1.03134477201, 1.01466758955), rel=1e-9)
    samples = (logits.mean(), logits.std(), logits[0, 0, 0, 0], logits[1, 3, 32, 40], logits[0, 6, 64, 80])
    expected = (-0.247153571607, 1.34006613188, -1.17691224638, 0.0621247871301, 0.121019061096)
    assert [value.item() for value in samples] == pytest.approx(expected, rel=1e-9)
