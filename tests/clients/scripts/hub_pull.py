"""huggingface_hub pulls repos of every kind and revision, by command and by function."""

import subprocess
from hashlib import sha256
from pathlib import Path

from asking import tell
from huggingface_hub import hf_hub_download, snapshot_download


def hashes(folder):
    """Return the sha256 of each file of a snapshot, by its path."""
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def snapshot(name="org/m", **where):
    return hashes(snapshot_download(name, **where))


def command():
    """Return the files of the folder that `hf download` prints, as its last line where it says more."""
    run = subprocess.run(["hf", "download", "org/m", "--quiet"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return hashes(run.stdout.strip().splitlines()[-1])


tell(
    "huggingface_hub",
    cli=command,
    snapshot=snapshot,
    tag=lambda: snapshot(revision="v1"),
    pull_request=lambda: snapshot(revision="refs/pr/1"),
    branch=lambda: snapshot(revision="feature/x"),
    dataset=lambda: snapshot("org/d", repo_type="dataset"),
    space=lambda: snapshot("org/s", repo_type="space"),
    single=lambda: sha256(Path(hf_hub_download("org/m", "n.txt", subfolder="sub/deep")).read_bytes()).hexdigest(),
    patterns=lambda: sorted(snapshot("org/p", allow_patterns=["*.json", "data/*"])),
)
