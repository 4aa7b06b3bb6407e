"""`hubcache demo`: three kinds of source pulled from an embedded upstream, then loaded with that upstream gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hubcache.app.compose import compose
from hubcache.app.settings import Settings
from hubcache.app.usecases import NoProgress, Pulled, PullRequest, pull
from hubcache.core.artifact import RepoId
from hubcache.demo.models import SENTENCES
from hubcache.demo.upstream import DemoUpstream
from hubcache.errors import HubcacheError, UsageError

LOAD_TIMEOUT = 120.0

# Runs in a process of its own: nothing of hubcache is imported there, the network is off, and no upstream lives.
_LOADER = """
import sys
from transformers import AutoModel, AutoTokenizer
name, sentence = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(name)
model, told = AutoModel.from_pretrained(name, output_loading_info=True)
lost = [key for key in told["missing_keys"] if "pooler" not in key]
assert not lost, f"initialised at random: {lost}"
batch = tokenizer(sentence, return_tensors="pt")
hidden = model(**batch).last_hidden_state
assert hidden.isfinite().all()
print(f"{type(model).__name__}, {batch['input_ids'].shape[1]} tokens -> {list(hidden.shape)}")
"""


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One pull of the demo and the repo it becomes in the cache."""

    what: str
    reference: str


def run_demo(folder: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Pull a hub repo, a SparseZoo model and a tarball into `folder`/hub, stop the upstream, load each offline.

    Raises:
        UsageError: transformers or torch is not installed.
        HubcacheError: a step failed.
    """
    if find_spec("transformers") is None or find_spec("torch") is None:
        raise UsageError(
            "the demo loads what it pulled with transformers and torch, which are not installed here",
            hint="pip install 'hubcache[train]'",
        )
    with DemoUpstream() as upstream:
        steps = (
            DemoStep("a repo of the Hub", upstream.hub_reference),
            DemoStep("a SparseZoo stub", upstream.zoo_reference),
            DemoStep("a tarball in an object store", upstream.tarball_url),
        )
        say(f"upstream: one server on {upstream.endpoint} speaks as all three hubs")
        demo_environ = {
            **environ,
            "HF_ENDPOINT": upstream.endpoint,
            "SPARSEZOO_API_URL": upstream.endpoint,
            "HF_HUB_CACHE": str(folder / "hub"),
            "XDG_STATE_HOME": str(folder / "state"),
            "HF_HUB_OFFLINE": "0",
        }
        pulled = [_pull(step, demo_environ, say) for step in steps]
        again = _pull(steps[0], demo_environ, say=lambda _: None)
        say(f"         the first again: {len(again.plan.missing)} files to transfer")
        say(f"         {upstream.requests} requests, {upstream.bytes_sent / 1000:.0f} kB sent")
    say("upstream: stopped")
    for result in pulled:
        _load(result.artifact.repo, demo_environ, say)
    say("all three loaded by an unmodified from_pretrained with the network off")


def _pull(step: DemoStep, environ: Mapping[str, str], say: Callable[[str], None]) -> Pulled:
    app = compose(Settings.from_environ(environ))
    began = time.monotonic()
    pulled = pull(app, PullRequest(step.reference), progress=NoProgress(), notify=say)
    seconds = time.monotonic() - began
    say(f"pull     {step.what}: {step.reference}")
    say(f"         {len(pulled.plan.files)} files verified in {seconds:.2f} s, now {pulled.artifact.repo}")
    return pulled


def _load(repo: RepoId, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    offline = {**environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", _LOADER, repo.name, SENTENCES[0]]
    began = time.monotonic()
    loaded = subprocess.run(  # noqa: S603  # our own interpreter and our own text
        command, env=offline, capture_output=True, text=True, timeout=LOAD_TIMEOUT, check=False
    )
    if loaded.returncode:
        raise HubcacheError(f"{repo} did not load: {loaded.stderr.strip()[-2000:]}")
    say(f"load     {repo} offline, {time.monotonic() - began:.1f} s: {loaded.stdout.strip()}")
