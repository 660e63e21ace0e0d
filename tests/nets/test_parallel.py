"""Two processes on the CPU train as torchrun starts them on two GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tomoseg.nets.checkpoint import load_state
from tomoseg.nets.parallel import World, joined

SCRIPT = """
import sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[2])
from test_train import make_settings, volumes
from tomoseg.nets import state as states
from tomoseg.nets import train as trainer

kept = []
start = states.start_state
trainer.start_state = lambda *given: kept.append(start(*given)) or kept[-1]
output = Path(sys.argv[1])
settings = make_settings(steps=3, batch=2, threads=1)
trainer.train(volumes(), settings, output=output / "model")
weights = [p.detach().flatten() for p in kept[0].network.parameters()]
import os
torch.save(torch.cat(weights), output / f"rank{os.environ['RANK']}.pt")
"""


def test_two_processes_train_one_network(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += ["2", str(script), str(tmp_path), str(Path(__file__).parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank{n}.pt", weights_only=True) for n in (0, 1))
    # Each drew batches of its own; averaged gradients keep the weights equal.
    assert torch.equal(first, second)
    _, record = load_state(tmp_path / "model" / "training.safetensors")
    assert record["step"] == 3


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as world:
        assert world == World() and world.is_first
        network = torch.nn.Linear(1, 1)
        assert world.wrapped(network) is network
        assert world.agreed(3.5, torch.device("cpu")) == 3.5


@pytest.mark.parametrize("name", ["cpu", "cuda:1"])
def test_a_device_that_is_named_stays(name):
    assert World(1, 2).device(name) == name
