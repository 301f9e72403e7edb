import pytest

from pipeline.config import Config
from pipeline.doctor import trackers as examined
from pipeline.doctor.trackers import trackers


def looked_at(tmp_path, environment=None, **logger):
    config = Config.model_validate({"name": "pick", "runs_dir": str(tmp_path), "trainer": {"logger": logger}})
    return [(check.name, check.found) for check in trackers(config, {"HOME": str(tmp_path), **(environment or {})})]


def test_nothing_is_looked_at_where_nothing_is_enabled(tmp_path):
    assert looked_at(tmp_path) == []


def test_directories_are_looked_at(tmp_path):
    found = looked_at(tmp_path, tensorboard={"enable": True}, wandb={"enable": True, "mode": "offline"})
    assert found == [
        ("TensorBoard", f"{tmp_path} can be written to"),
        ("W&B", f"{tmp_path} can be written to, offline"),
    ]


@pytest.mark.parametrize("known", ["variable", "netrc", "nowhere"])
def test_a_key_is_looked_for(tmp_path, known):
    if known == "netrc":
        (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password abc\n")
    environment = {"WANDB_API_KEY": "abc"} if known == "variable" else {}
    ((_, found),) = looked_at(tmp_path, environment, wandb={"enable": True})
    missing = "no API key for https://api.wandb.ai: the run goes on without W&B"
    assert found == (missing if known == "nowhere" else f"{tmp_path} can be written to, online")


def test_what_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(examined, "uninstalled", lambda config: {"wandb": "it is missing: pip install it"})
    assert looked_at(tmp_path, wandb={"enable": True}) == [("W&B", "it is missing")]
