"""SOFA's entry points under their own names: what its tutorial imports, and what it says of backends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tests.support.goldens as goldens

sofa = pytest.importorskip("hubcache.compat.sofa")
models = pytest.importorskip("hubcache.models")

pytestmark = pytest.mark.train

TUTORIAL = """
import sys
import hubcache.compat.sofa as sofa
sofa.environ("huggingface")
import torch
from hubcache.compat.sofa import SbertConfig, SbertForSequenceClassification, SbertTokenizerFast
from transformers import AutoModelForSequenceClassification

model = SbertForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2)
tokenizer = SbertTokenizerFast.from_pretrained(sys.argv[1])
batch = tokenizer(["the movie was great", "the plot was bad"], padding=True, return_tensors="pt")
loss = model.train()(**batch, labels=torch.tensor([1, 0])).loss
loss.backward()
assert loss.isfinite()
model.save_pretrained(sys.argv[2])
print(type(AutoModelForSequenceClassification.from_pretrained(sys.argv[2])).__name__)
"""


@pytest.mark.parametrize("name", [name for name in sofa.__all__ if hasattr(models, name) and name[0].isupper()])
def test_an_exported_class_is_the_one_of_hubcache_models(name: str) -> None:
    assert getattr(sofa, name) is getattr(models, name)


@pytest.mark.parametrize("module", [sofa, sofa.utils, sofa.sbert, sofa.palm, sofa.veco, sofa.models])
def test_a_module_has_what_it_exports(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]  # a module's
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("backend", ["huggingface", "sofa", "easytexminer", "easynlp"])
def test_a_backend_that_sofa_knew_is_taken(backend: str) -> None:
    sofa.environ(backend)
    assert models.SbertModel is sofa.SbertModel


def test_a_backend_that_sofa_did_not_know_is_refused_in_its_words() -> None:
    with pytest.raises(RuntimeError, match=r"^Sofa backend tensorflow not supported\.$"):
        sofa.environ("tensorflow")


def test_a_tutorial_script_runs_after_its_import_lines_are_changed(tmp_path: os.PathLike[str]) -> None:
    import tarfile

    archive = goldens.golden("sofa/tarballs/english_sbert-large-std-512.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(os.path.join(tmp_path, "model"), filter="data")
    command = [sys.executable, "-c", TUTORIAL, os.path.join(tmp_path, "model"), os.path.join(tmp_path, "saved")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (told.returncode, told.stdout.strip()) == (0, "SbertForSequenceClassification"), told.stderr
