"""What a run leans on beside Slurm."""

import http.server
import sys
import threading

import pytest

from pipeline import rundir
from pipeline.doctor import services
from pipeline.lease import Lease


@pytest.fixture
def server():
    """Starts a server that answers with a status; returns its address."""
    servers = []

    def start(status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status if self.path == "/health" else 404)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


@pytest.fixture
def mlflow(make):
    return lambda uri: services.mlflow(make(f"trainer.logger.mlflow.uri={uri}", gpus=False))


def test_mlflow_that_answers(server, mlflow):
    assert mlflow(server(200)).verdict == "pass"


def test_mlflow_that_wants_a_password(server, mlflow):
    check = mlflow(server(401))
    assert check.verdict == "warn"
    assert "401" in check.found


def test_mlflow_that_does_not_answer(mlflow):
    check = mlflow("http://127.0.0.1:9/")
    assert check.verdict == "fail"
    assert "Connection refused" in check.found
    assert "trainer.logger.mlflow.uri" in check.remedy


def test_mlflow_in_a_database(mlflow, make, monkeypatch, tmp_path):
    assert services.mlflow(make(gpus=False)).verdict == "pass"
    assert mlflow(f"sqlite:///{tmp_path}/mlflow.db").verdict == "pass"
    monkeypatch.setattr(services, "mount", lambda place: ("server:/x", "nfs4"))
    check = mlflow(f"sqlite:///{tmp_path}/mlflow.db")
    assert check.verdict == "warn"
    assert "mlflow server" in check.remedy
    monkeypatch.setattr(services.os, "access", lambda place, how: False)
    assert mlflow(f"sqlite:///{tmp_path}/mlflow.db").verdict == "fail"


def test_mlflow_that_is_off(make):
    assert services.mlflow(make("trainer.logger.mlflow.enable=false", gpus=False)).verdict == "skip"


def test_a_run_that_is_new_and_one_that_goes_on(make):
    (check,) = services.run_place(make(gpus=False))
    assert check.verdict == "pass"
    run = rundir.create_or_resume(make(gpus=False))
    (check,) = services.run_place(make(gpus=False))
    assert check.verdict == "pass"
    assert "will be continued" in check.found
    (check,) = services.run_place(make("epochs=5", gpus=False))
    assert check.verdict == "pass"
    assert "epochs will be changed" in check.found
    (check,) = services.run_place(make("sft.steps=7", gpus=False))
    assert check.verdict == "fail"
    assert "another sft.steps" in check.found
    with Lease(run, print):
        (check,) = services.run_place(make(gpus=False))
    assert check.verdict == "warn"
    assert "driven by process" in check.found


def test_a_directory_that_is_no_run(make, tmp_path):
    (tmp_path / "runs" / "recipe").mkdir(parents=True)
    (tmp_path / "runs" / "recipe" / "thesis.tex").touch()
    (check,) = services.run_place(make(gpus=False))
    assert check.verdict == "fail"
    assert "thesis.tex" in check.found


def test_a_directory_that_cannot_be_written_to(make, monkeypatch):
    monkeypatch.setattr(services.os, "access", lambda place, how: False)
    (check,) = services.run_place(make(gpus=False))
    assert check.verdict == "fail"


def test_a_checkpoint(make, tmp_path):
    assert not list(services.checkpoint(make(gpus=False)))
    config = make(f"policy.checkpoint={tmp_path / 'policy'}", gpus=False)
    assert [check.verdict for check in services.checkpoint(config)] == ["fail"]
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("{}")
    (check,) = services.checkpoint(config)
    assert check.verdict == "fail"
    assert "no *.safetensors" in check.found
    header = b'{"vision_backbone.featurizer.cls_token": {"shape": [1, 1, 64]}}'
    (tmp_path / "policy" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert [check.verdict for check in services.checkpoint(config)] == ["pass"]
    (check,) = services.checkpoint(make(f"policy.checkpoint={tmp_path / 'policy'}", "policy.name=pi0", gpus=False))
    assert check.found == f"policy.checkpoint={tmp_path / 'policy'} holds a policy of openvla_oft"
    assert check.remedy == "set policy.name=openvla_oft, or name another"


def test_the_interpreter_of_the_simulator(make):
    assert not list(services.interpreter(make(gpus=False), on_nodes=False))
    here = make(f"simulator.python={sys.executable}", gpus=False)
    assert [check.verdict for check in services.interpreter(here, on_nodes=False)] == ["pass"]
    gone = make("simulator.python=/opt/nope", gpus=False)
    assert [check.verdict for check in services.interpreter(gone, on_nodes=False)] == ["fail"]
    assert [check.verdict for check in services.interpreter(gone, on_nodes=True)] == ["warn"]
