"""PALM generating: the reference's beam search against its own texts, and transformers' generate() over the cache.

Speed is tests/bench/palm_generate.py's question.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hubcache.models.beam_search import TextGenerator
from hubcache.models.palm import PalmConfig, PalmForConditionalGeneration
from tests.support.goldens import golden

pytestmark = pytest.mark.train

TOLERANCE = 2e-6
SYMBOLS = {"[CLS]": 101, "[SEP]": 102}
RUNS = range(5)
SEARCHES: list[dict[str, Any]] = [{"num_beams": 1}, {"num_beams": 4}]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Trained:
    """The golden that was trained for a while, so that its texts end; generation changes none of it."""

    def __init__(self) -> None:
        self.folder = golden("sofa/palm/generation_undertrained")
        self.told = json.loads((self.folder / "outputs.json").read_text())
        with np.load(self.folder / "inputs.npz") as stored:
            self.batch = [
                torch.from_numpy(stored[name]) for name in ("input_tokens", "token_type_ids", "attention_mask")
            ]
        self.model = self.load()

    def load(self, **options: Any) -> Any:
        model = PalmForConditionalGeneration.from_pretrained(self.folder, **options).eval()
        # The old config.json says 20, and transformers warns of it beside every max_new_tokens.
        model.generation_config.max_length = None
        return model

    def generate(self, model: Any = None, rows: slice = slice(None), **options: Any) -> Tensor:
        tokens, types, mask = (array[rows] for array in self.batch)
        model = model or self.model
        return model.generate(tokens, token_type_ids=types, attention_mask=mask, **({"max_new_tokens": 20} | options))


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


def texts(generated: Tensor) -> list[list[int]]:
    """What generate() returned, without the start token and what follows the end.

    That is padding after a greedy search; transformers' beam search takes a padding token of 0 for none and repeats
    the end token.
    """
    rows = [row[1:].tolist() for row in generated]
    return [row[: row.index(102) + 1] if 102 in row else row for row in rows]


def predictions(found: dict[str, Any]) -> list[list[int]]:
    return [best.tolist() for [best] in found["predictions"]]


def searched(trained: Trained, model: Any = None, batch: list[Tensor] | None = None, **options: Any) -> dict[str, Any]:
    return TextGenerator(model or trained.model, None, SYMBOLS, **options).translate_batch(batch or trained.batch)


def same_scores(found: dict[str, Any], expected: list[float]) -> None:
    """A score is a sum over the text's tokens, divided by its length's penalty: the tolerance is for each of them."""
    for [text], [score], reference in zip(found["predictions"], found["scores"], expected, strict=True):
        penalty = ((5 + len(text)) / 6) ** 0.6
        assert abs(float(score) - reference) * penalty <= TOLERANCE * len(text)


# The reference's beam search.


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("number", RUNS)
def test_text_generator_gives_the_reference_s_texts_and_scores(trained: Trained, number: int, attention: str) -> None:
    run = trained.told["runs"][number]
    options = {name: run[name] for name in ("beam_size", "min_length", "max_length")}
    found = searched(trained, trained.load(attn_implementation=attention), **options)
    assert predictions(found) == run["predictions"]
    same_scores(found, run["scores"])


def test_every_run_of_the_golden_is_tested(trained: Trained) -> None:
    assert len(trained.told["runs"]) == len(RUNS)


def test_the_archive_s_texts_and_scores_are_the_reference_s(tmp_path: Path) -> None:
    with tarfile.open(golden("sofa/tarballs/chinese-palm-base.tar.gz")) as packed:
        packed.extractall(tmp_path, filter="data")
    with np.load(golden("sofa/tarballs/expected/chinese-palm-base.npz")) as stored:
        batch = [
            torch.from_numpy(stored[f"in/{name}"]) for name in ("input_tokens", "token_type_ids", "attention_mask")
        ]
        texts, scores = stored["gen"].tolist(), stored["gen_scores"].tolist()
    model = PalmForConditionalGeneration(PalmConfig.from_pretrained(tmp_path))
    model.model.load_state_dict(torch.load(tmp_path / "palm_model.pt"))
    found = TextGenerator(model, None, SYMBOLS, max_length=12).translate_batch(batch)
    assert predictions(found) == texts
    same_scores(found, scores)


def test_an_input_s_text_does_not_depend_on_the_batch(trained: Trained) -> None:
    whole = searched(trained)
    for row in range(len(trained.batch[0])):
        alone = searched(trained, batch=[array[row : row + 1] for array in trained.batch])
        assert predictions(alone) == predictions(whole)[row : row + 1]
        same_scores(alone, [float(whole["scores"][row][0])])


def test_the_result_has_the_reference_s_parts(trained: Trained) -> None:
    found = searched(trained, max_length=5)
    assert found.keys() == {"predictions", "scores", "gold_score", "batch"}
    assert found["batch"] is trained.batch
    assert found["gold_score"] == [0] * 5
    assert {best.dtype for [best] in found["predictions"]} == {torch.long}


def test_a_text_without_an_end_has_max_length_tokens(trained: Trained) -> None:
    found = searched(trained, min_length=4, max_length=4)
    assert [len(text) for text in predictions(found)] == [4] * 5
    assert not any(102 in text for text in predictions(found))


def test_a_model_in_training_generates_without_dropout_and_stays_in_training(trained: Trained) -> None:
    model = trained.load(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()
    assert predictions(searched(trained, model)) == trained.told["runs"][0]["predictions"]
    assert model.training


def test_a_max_length_of_nothing_is_refused(trained: Trained) -> None:
    with pytest.raises(ValueError, match="max_length"):
        searched(trained, max_length=0)


def test_text_generator_runs_in_bfloat16(trained: Trained) -> None:
    found = searched(trained, trained.load(dtype=torch.bfloat16), max_length=8)
    assert all(torch.isfinite(score) for [score] in found["scores"])


# transformers' generate().


@pytest.mark.parametrize("number", RUNS)
def test_greedy_generate_is_text_generator_with_one_beam(trained: Trained, number: int) -> None:
    shortest, longest = (trained.told["runs"][number][name] for name in ("min_length", "max_length"))
    found = searched(trained, beam_size=1, min_length=shortest, max_length=longest)
    generated = trained.generate(min_new_tokens=shortest, max_new_tokens=longest)
    assert texts(generated) == predictions(found)


@pytest.mark.parametrize("search", SEARCHES)
def test_generate_is_the_same_without_a_cache(trained: Trained, search: dict[str, Any]) -> None:
    assert torch.equal(trained.generate(**search), trained.generate(**search, use_cache=False))


@pytest.mark.parametrize("search", SEARCHES)
def test_generate_is_the_same_twice(trained: Trained, search: dict[str, Any]) -> None:
    assert torch.equal(trained.generate(**search), trained.generate(**search))


@pytest.mark.parametrize("search", SEARCHES)
def test_generate_for_one_is_the_same_as_in_a_batch(trained: Trained, search: dict[str, Any]) -> None:
    whole = texts(trained.generate(**search))
    assert [texts(trained.generate(rows=slice(row, row + 1), **search))[0] for row in range(5)] == whole


def test_beams_have_finite_scores(trained: Trained) -> None:
    found = trained.generate(num_beams=4, return_dict_in_generate=True, output_scores=True)
    assert found.sequences_scores.isfinite().all()


def test_sampling_repeats_with_the_seed(trained: Trained) -> None:
    torch.manual_seed(3)
    first = trained.generate(do_sample=True, temperature=3.0)
    torch.manual_seed(3)
    assert torch.equal(trained.generate(do_sample=True, temperature=3.0), first)


def test_a_static_cache_generates_the_same(trained: Trained) -> None:
    static = trained.generate(cache_implementation="static", disable_compile=True)
    assert torch.equal(static, trained.generate())


def test_padding_on_the_right_does_not_change_the_text(trained: Trained) -> None:
    padded = [torch.nn.functional.pad(array, (0, 6)) for array in trained.batch]
    tokens, types, mask = padded
    generated = trained.model.generate(tokens, token_type_ids=types, attention_mask=mask, max_new_tokens=20)
    assert torch.equal(generated, trained.generate())


def test_eager_attention_generates_the_same(trained: Trained) -> None:
    assert torch.equal(trained.generate(trained.load(attn_implementation="eager")), trained.generate())


def test_a_text_begins_with_cls_and_ends_with_sep_then_padding(trained: Trained) -> None:
    for row in trained.generate().tolist():
        end = row.index(102)
        assert row[0] == 101
        assert not any(row[end + 1 :])


def test_given_decoder_tokens_are_continued(trained: Trained) -> None:
    whole = trained.generate()
    begun = trained.generate(decoder_input_ids=whole[:, :2], max_new_tokens=18)
    assert torch.equal(begun, whole[:, : begun.shape[1]])


def test_an_encoder_that_ran_already_is_not_run_again(trained: Trained) -> None:
    tokens, types, mask = trained.batch
    encoded = trained.model.get_encoder()(tokens, mask, types)
    again = trained.model.generate(encoder_outputs=encoded, attention_mask=mask, max_new_tokens=20)
    assert torch.equal(again, trained.generate())


def test_a_decoder_deeper_than_the_encoder_generates_over_the_cache() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 120, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    config = PalmConfig(**sizes, num_hidden_layers=1, dec_hidden_layers=3, initializer_range=0.3)
    model = PalmForConditionalGeneration(config).eval()
    tokens = torch.randint(1, 100, (2, 7))
    cached = model.generate(tokens, max_new_tokens=9)
    assert torch.equal(cached, model.generate(tokens, max_new_tokens=9, use_cache=False))


def test_a_model_on_disk_generates_the_same(trained: Trained, tmp_path: Path) -> None:
    places = {"model.bert": "cpu", "model.decoder": "disk", "model.cls": "cpu"}
    assert torch.equal(trained.generate(trained.load(device_map=places, offload_folder=tmp_path)), trained.generate())


def test_a_saved_model_generates_the_same(trained: Trained, tmp_path: Path) -> None:
    trained.model.save_pretrained(tmp_path)
    again = PalmForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(trained.generate(again), trained.generate())


def test_a_generation_config_of_the_user_s_keeps_its_tokens(trained: Trained) -> None:
    model = trained.load()
    changed = type(model.generation_config)(eos_token_id=7, max_new_tokens=3)
    model.generation_config = changed
    assert (model.generation_config.eos_token_id, model.generation_config.decoder_start_token_id) == (7, 101)


# The cache by itself.


@torch.no_grad()
def test_token_by_token_over_the_cache_gives_the_logits_of_all_at_once(trained: Trained) -> None:
    tokens, types, mask = trained.batch
    targets = torch.randint(1, 400, (5, 8))
    whole = trained.model(input_ids=tokens, token_type_ids=types, attention_mask=mask, decoder_input_ids=targets)
    cache = None
    for step in range(targets.shape[1]):
        outputs = trained.model(
            encoder_outputs=(whole.encoder_last_hidden_state,),
            attention_mask=mask,
            decoder_input_ids=targets[:, step : step + 1],
            past_key_values=cache,
            use_cache=True,
        )
        cache = outputs.past_key_values
        torch.testing.assert_close(outputs.logits[:, 0], whole.logits[:, step], rtol=0, atol=2 * TOLERANCE)


@torch.no_grad()
def test_several_tokens_may_follow_the_cache(trained: Trained) -> None:
    tokens, types, mask = trained.batch
    targets = torch.randint(1, 400, (5, 8))
    inputs = {"input_ids": tokens, "token_type_ids": types, "attention_mask": mask}
    whole = trained.model(**inputs, decoder_input_ids=targets)
    first = trained.model(**inputs, decoder_input_ids=targets[:, :3])
    rest = trained.model(**inputs, decoder_input_ids=targets[:, 3:], past_key_values=first.past_key_values)
    torch.testing.assert_close(rest.logits, whole.logits[:, 3:], rtol=0, atol=2 * TOLERANCE)


@torch.no_grad()
def test_the_cross_attention_s_keys_are_computed_once(trained: Trained) -> None:
    tokens, types, mask = trained.batch
    inputs = {"input_ids": tokens, "token_type_ids": types, "attention_mask": mask}
    first = trained.model(**inputs, decoder_input_ids=torch.full((5, 1), 101))
    keys = first.past_key_values.cross_attention_cache.layers[0].keys
    trained.model(**inputs, decoder_input_ids=torch.full((5, 1), 7), past_key_values=first.past_key_values)
    assert first.past_key_values.cross_attention_cache.layers[0].keys is keys
    assert first.past_key_values.get_seq_length() == 2


@torch.no_grad()
def test_no_cache_is_made_where_none_is_wanted(trained: Trained) -> None:
    inputs = {"input_ids": trained.batch[0], "decoder_input_ids": torch.full((5, 2), 101)}
    assert trained.model(**inputs, use_cache=False).past_key_values is None
    assert trained.model(**inputs, labels=torch.full((5, 2), 7)).past_key_values is None


# The benchmark.


@pytest.mark.slow
def test_palm_generate_prints_one_line(tmp_path: Path) -> None:
    sizes = ["--layers", "1", "--length", "4", "--source", "8", "--batch", "2", "--beam", "2"]
    command = [sys.executable, "-m", "tests.bench.palm_generate", "--dir", str(tmp_path), *sizes]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    told = json.loads(line)
    assert set(told["measured"]) == {"reference", "text_generator", "greedy_uncached", "greedy_cached"}
    assert told["targets"].keys() == {"wall_to_reference"}
