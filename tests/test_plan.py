"""What a run trains: every sub-network has a name of its own."""

from pathlib import Path

import pytest

import tiny_run
from dynabert_jax.config import RunConfig
from dynabert_jax.config.checked import ConfigError
from dynabert_jax.plan import plan_run
from tiny_run import Materials


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return Materials(tmp_path).config(tmp_path / "run")


@pytest.mark.parametrize("stage", ["width", "depth", "final"])
def test_two_widths_of_one_name_are_refused(stage: str, config: RunConfig) -> None:
    changed = getattr(config, stage).replace(widths=(0.625, 0.6250001))  # of 4 heads, 2 and 3
    with pytest.raises(ConfigError, match=r"two sub-networks would have the name w0\.625_d"):
        plan_run(tiny_run.MODEL, config.replace(**{stage: changed}))


def test_stages_share_their_names(config: RunConfig) -> None:
    """A name is that of the same sub-network in the logs of all stages."""
    assert config.width is not None
    assert config.depth is not None
    stages = {"width": config.width.replace(widths=(0.625,)), "depth": config.depth.replace(widths=(0.6250001,))}
    with pytest.raises(ConfigError, match=r"two sub-networks would have the name w0\.625_d1"):
        plan_run(tiny_run.MODEL, config.replace(**stages))
    plan_run(tiny_run.MODEL, config)
