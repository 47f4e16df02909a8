import numpy as np
import pytest

from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.tracking import Sample


@pytest.fixture
def info():
    return DatasetInfo("toy", ("sky", "road"), ((10, 20, 30), (200, 100, 50)))


@pytest.fixture
def sample():
    truth = np.zeros((40, 50), np.uint8)
    truth[:10] = 255
    prediction = np.zeros((40, 50), np.uint8)
    prediction[:, 25:] = 1
    image = np.full((40, 50, 3), 77, np.uint8)
    return Sample(
        "val/a 1", image, truth, prediction, np.linspace(0, 1, 2000, dtype=np.float32).reshape(40, 50)
    )
