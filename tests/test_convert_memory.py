"""Converting a large checkpoint takes little memory beside torch's own, whatever its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hubcache.convert.families import FAMILIES

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's peak memory is read from /proc"),
]

ROOT = Path(__file__).parents[1]
CONFIG = {"model_type": "sbert", "hidden_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 16}
CONFIG |= {"intermediate_size": 4096, "vocab_size": 25000}

MEASURE = """
import json, pathlib, sys
from hubcache.convert.checkpoint import plan_conversion

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

def convert(folder):
    written = 0
    def write(path, chunks, size):
        nonlocal written
        written += sum(map(len, chunks))
    files = {file.name: file for file in pathlib.Path(folder).iterdir()}
    plan_conversion(files, name="structbert").convert(write)
    return written

small, large = sys.argv[1:]
convert(small)
before = peak()
written = convert(large)
print(json.dumps([peak() - before, written]))
"""


def publish(folder: Path, config: dict[str, Any], **how: Any) -> Path:
    folder.mkdir()
    layout = FAMILIES["sbert"].layout(config).required
    torch.save({name: torch.rand(shape) for name, shape in layout.items()}, folder / "pytorch_model.bin", **how)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def measured(small: Path, large: Path) -> tuple[int, int]:
    """Return the bytes that converting `large` takes beyond what converting `small` has taken, and those written."""
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    extra, written = json.loads(done.stdout)
    return extra, written


@pytest.mark.slow
@pytest.mark.parametrize(("zipped", "most"), [(True, 0.25), (False, 1.25)], ids=["zip", "legacy"])
def test_the_memory_beyond_torchs_own_is_bounded(zipped: bool, most: float, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    small = publish(tmp_path / "small", CONFIG | {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 16})
    large = publish(tmp_path / "large", CONFIG, _use_new_zipfile_serialization=zipped)
    size = (large / "pytorch_model.bin").stat().st_size
    extra, written = measured(small, large)
    assert size > 190 << 20
    assert written > 0.99 * size
    assert extra < most * size


def test_the_benchmark_prints_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.convert_large", "--dir", str(tmp_path), "--runs", "1"]
    done = subprocess.run(
        [*command, "--layers", "1", "--hidden", "32"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert json.loads(line)["targets"].keys() == {"wall_to_unpack", "peak_to_file"}
