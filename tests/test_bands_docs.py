"""The conversions of docs/bands.md, run on files that the libraries of the formats make."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from semiseg.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "bands.md"


def code(name: str) -> str:
    found = re.search(
        rf"<!-- test: {name} -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    return found[1]


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_dicom(path: Path, stored: Any, patient: str, number: int) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    slice_.PatientID, slice_.InstanceNumber = patient, number
    slice_.Rows, slice_.Columns = stored.shape
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
    slice_.RescaleSlope, slice_.RescaleIntercept, slice_.PixelPaddingValue = "2", "-1024", -2000
    slice_.PixelData = stored.astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    slice_.save_as(path)


def test_dicom_becomes_arrays_of_hounsfield_units() -> None:
    pytest.importorskip("pydicom")
    from PIL import Image

    rng = np.random.RandomState(0)
    stored = {}
    for patient in ("p1", "p2", "p3"):
        for number in (1, 2):
            pixels = rng.randint(-100, 2000, (40, 48)).astype(np.int16)
            pixels[0, :5] = -2000
            stored[f"{patient}_{number:04d}"] = pixels
            write_dicom(Path("dicom") / patient / f"{number}.dcm", pixels, patient, number)
    exec(code("dicom"), {})
    assert sorted(path.stem for path in Path("ct/images").iterdir()) == sorted(stored)
    for name, pixels in stored.items():
        values = np.load(f"ct/images/{name}.npy")
        assert values.dtype == np.float32
        assert np.isnan(values[0, :5]).all()
        assert np.array_equal(values[1:], pixels[1:] * 2.0 - 1024)
        Path("ct/masks").mkdir(exist_ok=True)
        Image.fromarray((pixels > 900).astype(np.uint8)).save(f"ct/masks/{name}.png")
    assert (
        main(["init", "ct", "--bands", "--groups", "^(.+)_", "--classes", "soft,dense", "--val", "0.3"]) == 0
    )
    config = yaml.safe_load(Path("dataset/ct.yaml").read_text(encoding="utf-8"))
    assert (config["bands"]["channels"], config["bands"]["dtype"]) == (1, "float32")
    held = set(Path("dataset/ct.val.txt").read_text(encoding="utf-8").split())
    assert held
    train = [stored[name][1:] * 2.0 - 1024 for name in stored if name not in held]
    rest = [stored[name][0, 5:] * 2.0 - 1024 for name in stored if name not in held]
    pixels = np.concatenate([each.ravel() for each in (*train, *rest)])
    assert config["bands"]["mean"] == pytest.approx([pixels.mean()], rel=1e-8)
    assert config["bands"]["std"] == pytest.approx([pixels.std()], rel=1e-8)


def test_nifti_becomes_slices_with_their_masks() -> None:
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.RandomState(0)
    for folder in ("images", "labels"):
        (Path("nifti") / folder).mkdir(parents=True)
    volumes = {}
    for name in ("brain1", "brain2"):
        labels = rng.randint(0, 3, (20, 24, 3)).astype(np.uint8)
        volume = labels * 100.0 + rng.rand(20, 24, 3)
        volumes[name] = volume, labels
        affine = np.diag([-1.0, 1.0, 2.0, 1.0])  # left to right: the first axis has to be turned
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), f"nifti/images/{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), f"nifti/labels/{name}.nii.gz")
    exec(code("nifti"), {})
    from PIL import Image

    for name, (volume, labels) in volumes.items():
        for index in range(3):
            image = np.load(f"mri/images/{name}_{index:03d}.npy")
            with Image.open(f"mri/masks/{name}_{index:03d}.png") as file:
                mask = np.asarray(file)
            assert image.shape == mask.shape == (24, 20)
            assert np.array_equal(np.rot90(mask, -1), labels[::-1, :, index])
            assert np.allclose(np.rot90(image, -1), volume[::-1, :, index])
    assert (
        main(["init", "mri", "--bands", "--groups", "^(.+)_", "--classes", "air,gray,white", "--val", "0.5"])
        == 0
    )
    held = Path("dataset/mri.val.txt").read_text(encoding="utf-8").split()
    assert len({name.split("_")[0] for name in held}) == 1
