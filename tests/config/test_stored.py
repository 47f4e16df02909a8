"""Configs that runs of earlier versions have stored are read as what they mean today."""

from pathlib import Path

from omegaconf import OmegaConf

from semiseg.config.compose import Request, compose, render_run_yaml
from semiseg.config.stored import completed, differing_keys, plain


def as_released(cfg: dict[str, object]) -> dict[str, object]:
    """A config of DMTC as version 0.1.0 wrote it: a setting of DMT, without some defaults."""
    config = plain(cfg)
    config["method"]["_target_"] = "semiseg.methods.dmt.DMT"
    del config["augment"]["weak"]["pad"]
    return config


def test_dmtc_of_the_released_version_is_the_class_of_today() -> None:
    today = compose(Request(("method=dmtc",)))
    assert differing_keys(completed(as_released(plain(today))), today) == []


def test_dmt_stays_dmt() -> None:
    today = compose(Request(("method=dmt",)))
    assert completed(plain(today))["method"]["_target_"] == "semiseg.methods.dmt.DMT"


def test_a_run_file_of_the_released_version_composes(tmp_path: Path) -> None:
    today = compose(Request(("method=dmtc",)))
    released = render_run_yaml(OmegaConf.create(as_released(plain(today))))
    (tmp_path / "run.yaml").write_text(released)
    again = compose(Request(config_dir=tmp_path, config_name="run"))
    assert again.method._target_ == "semiseg.methods.dmtc.DMTC"
    assert differing_keys(again, today) == []
