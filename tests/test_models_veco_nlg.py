"""VECO's encoder-decoder against the numbers that the fairseq fork computed, and its tokenizer.

The renaming here is the test's own: hubcache/convert has its own tests.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

from hubcache.models.veco import (
    VecoConfig,
    VecoForConditionalGeneration,
    VecoModel,
    VecoNlgConfig,
    VecoNlgTokenizer,
    make_positions,
    start_with_language,
)
from tests.support.goldens import golden

pytestmark = pytest.mark.train

TOLERANCE = 2e-6
ENGLISH, FRENCH = 421, 422
TEXTS = (
    "the quick brown fox jumps over the lazy dog .",
    "Москва является столицей России",
    "東京は日本の首都です",
    "  two  spaces\tand tab\n",
    "ﬁ ½ ﾊﾝｶｸ 😀",
    "",
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def close(ours: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=0, atol=TOLERANCE)


def fairseq_weights() -> dict[str, torch.Tensor]:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(golden("sofa/veco_nlg/model.pt"), weights_only=True)["model"]


def loaded(attention: str = "sdpa") -> VecoForConditionalGeneration:
    """The golden's model: the row of <mask> dropped, the keys under `model.`, the head tied."""
    size = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    size |= {"encoder_layers": 3, "decoder_layers": 5, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = VecoNlgConfig(vocab_size=424, max_position_embeddings=64, attn_implementation=attention, **size)
    weights = {
        f"model.{key}": tensor[:424] if "embed_tokens" in key else tensor
        for key, tensor in fairseq_weights().items()
        if not key.endswith("version") and "output_projection" not in key
    }
    model = VecoForConditionalGeneration(config)
    assert model.load_state_dict(weights, strict=False) == (["lm_head.weight"], [])
    return model.eval()


class Golden:
    """The golden's inputs by our names, its outputs with the batch first."""

    def __init__(self) -> None:
        folder = golden("sofa/veco_nlg")
        inputs, self.outputs = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
        self.source, self.target = inputs["src_tokens"], inputs["prev_output_tokens"]
        self.inputs = {
            "input_ids": self.source,
            "decoder_input_ids": self.target,
            "decoder_attention_mask": self.target.ne(1).long(),
        }
        self.model = loaded()


@pytest.fixture(scope="module")
def fairseq() -> Golden:
    return Golden()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_logits_are_fairseq_s(fairseq: Golden, attention: str) -> None:
    close(loaded(attention)(**fairseq.inputs).logits, fairseq.outputs["logits"])


@torch.no_grad()
def test_every_encoder_state_is_fairseq_s(fairseq: Golden) -> None:
    outputs = fairseq.model(**fairseq.inputs, output_hidden_states=True)
    states = torch.stack(outputs.encoder_hidden_states[1:]).transpose(1, 2)
    close(states, fairseq.outputs["encoder_states"])
    close(outputs.encoder_last_hidden_state.transpose(0, 1), fairseq.outputs["encoder_out_TBC"])


@torch.no_grad()
def test_every_decoder_state_is_fairseq_s(fairseq: Golden) -> None:
    outputs = fairseq.model(**fairseq.inputs, output_hidden_states=True)
    states = torch.stack(outputs.decoder_hidden_states).transpose(1, 2)
    close(states, fairseq.outputs["decoder_inner_states"])


@torch.no_grad()
def test_token_embeddings_are_scaled_by_the_root_of_the_width(fairseq: Golden) -> None:
    embedded = fairseq.model.model.encoder.embed_tokens(fairseq.source)
    close(embedded, fairseq.outputs["encoder_embedding_scaled"])


@torch.no_grad()
def test_kept_decoder_layers_are_renumbered(fairseq: Golden, tmp_path: Path) -> None:
    model = loaded()
    model.keep_decoder_layers([3, 4])
    model.save_pretrained(tmp_path)
    again = VecoForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert again.config.decoder_layers == 2
    close(again(**fairseq.inputs).logits, fairseq.outputs["logits_keep_decoder_layers_3_4"])


def test_a_decoder_layer_that_is_not_there_cannot_be_kept() -> None:
    with pytest.raises(IndexError):
        loaded().keep_decoder_layers([4, 5])


@torch.no_grad()
def test_the_encoder_is_a_veco_encoder_with_scaled_embeddings(fairseq: Golden) -> None:
    config = VecoConfig(
        **{"vocab_size": 424, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
        **{"intermediate_size": 64, "max_position_embeddings": 66, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    )
    model = VecoModel(config, add_pooling_layer=False).eval()
    names = {
        "self_attn.q_proj": "attention.self.query",
        "self_attn.k_proj": "attention.self.key",
        "self_attn.v_proj": "attention.self.value",
        "self_attn.out_proj": "attention.output.dense",
        "self_attn_layer_norm": "attention.output.LayerNorm",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "final_layer_norm": "output.LayerNorm",
        "layernorm_embedding": "embeddings.LayerNorm",
        "layers": "encoder.layer",
        "embed_tokens": "embeddings.word_embeddings",
        "embed_positions": "embeddings.position_embeddings",
    }
    weights = {"embeddings.token_type_embeddings.weight": torch.zeros(1, 32)}
    for key, tensor in fairseq_weights().items():
        if key.startswith("encoder.") and not key.endswith("version"):
            key = key.removeprefix("encoder.")
            for ours, theirs in names.items():
                key = key.replace(ours, theirs)
            weights[key] = tensor[:424] * math.sqrt(32) if "word_embeddings" in key else tensor
    model.load_state_dict(weights)
    states = model(fairseq.source, attention_mask=fairseq.source.ne(1).long()).last_hidden_state
    reference = fairseq.outputs["encoder_out_TBC"].transpose(0, 1)
    close(states[fairseq.source.ne(1)], reference[fairseq.source.ne(1)])


@torch.no_grad()
def test_a_source_needs_no_mask_to_have_its_padding_ignored(fairseq: Golden) -> None:
    masked = fairseq.model(**fairseq.inputs, attention_mask=fairseq.source.ne(1).long()).logits
    close(fairseq.model(**fairseq.inputs).logits, masked)


@torch.no_grad()
def test_padding_on_the_right_gives_the_same_logits_as_on_the_left(fairseq: Golden) -> None:
    padding = fairseq.source.eq(1).sum(1)
    right = torch.stack([row.roll(-int(count)) for row, count in zip(fairseq.source, padding, strict=True)])
    close(fairseq.model(**fairseq.inputs | {"input_ids": right}).logits, fairseq.outputs["logits"])


@torch.no_grad()
def test_a_batch_of_one_is_the_same_as_in_a_batch(fairseq: Golden) -> None:
    logits = fairseq.model(input_ids=fairseq.source[2:, 5:], decoder_input_ids=fairseq.target[2:, :4]).logits
    close(logits, fairseq.outputs["logits"][2:, :4])


def test_positions_skip_padding_wherever_it_is() -> None:
    is_token = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert make_positions(is_token, 1).tolist() == [[1, 1, 2, 3], [2, 3, 4, 1]]
    assert make_positions(is_token, 1, past=3)[1].tolist() == [5, 6, 7, 1]


@torch.no_grad()
def test_a_step_with_the_cache_is_the_same_as_the_whole_target(fairseq: Golden) -> None:
    target, cache, steps = fairseq.target[:1], None, []
    encoded = fairseq.model.model.encoder(fairseq.source[:1])
    for step in range(target.shape[1]):
        outputs = fairseq.model(
            encoder_outputs=encoded,
            decoder_input_ids=target[:, step : step + 1],
            past_key_values=cache,
            use_cache=True,
        )
        cache = outputs.past_key_values
        steps.append(outputs.logits)
    close(torch.cat(steps, dim=1), fairseq.outputs["logits"][:1])


@torch.no_grad()
def test_a_padded_prefix_of_the_decoder_counts_no_position(fairseq: Golden) -> None:
    prefix = torch.tensor([[1, 1, *fairseq.target[0, :3].tolist()]])
    outputs = fairseq.model(
        input_ids=fairseq.source[:1], decoder_input_ids=prefix, decoder_attention_mask=prefix.ne(1).long()
    )
    close(outputs.logits[:, 2:], fairseq.outputs["logits"][:1, :3])


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_the_cache_equals_generation_without(fairseq: Golden, beams: int) -> None:
    told = {"decoder_start_token_id": FRENCH, "max_new_tokens": 12, "num_beams": beams}
    cached = fairseq.model.generate(fairseq.source, **told)
    assert torch.equal(cached, fairseq.model.generate(fairseq.source, use_cache=False, **told))
    assert cached[:, 0].tolist() == [FRENCH] * 3


def test_generation_with_kept_layers_uses_a_cache_of_their_number(fairseq: Golden) -> None:
    model = loaded()
    model.keep_decoder_layers([3, 4])
    told = {"decoder_start_token_id": FRENCH, "max_new_tokens": 6}
    assert torch.equal(model.generate(fairseq.source, **told), model.generate(fairseq.source, use_cache=False, **told))


def test_beams_find_a_likelier_target_than_greed(fairseq: Golden) -> None:
    told = {"decoder_start_token_id": FRENCH, "max_new_tokens": 6, "min_new_tokens": 6}

    def likelihood(targets: torch.Tensor) -> torch.Tensor:
        logits = fairseq.model(input_ids=fairseq.source, decoder_input_ids=targets[:, :-1]).logits
        return logits.log_softmax(-1).gather(2, targets[:, 1:, None]).sum()

    with torch.no_grad():
        beams = likelihood(fairseq.model.generate(fairseq.source, num_beams=8, **told))
        assert beams >= likelihood(fairseq.model.generate(fairseq.source, **told))


def test_generation_refuses_to_guess_the_target_s_language(fairseq: Golden) -> None:
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        fairseq.model.generate(fairseq.source, max_new_tokens=2)


def test_a_target_is_decoded_from_its_language_token() -> None:
    target = torch.tensor([[7, 8, 2, FRENCH], [9, 2, FRENCH, -100], [9, 2, FRENCH, 1], [1, 1, 1, 1]])
    expected = [[FRENCH, 7, 8, 2], [FRENCH, 9, 2, 1], [FRENCH, 9, 2, 1], [1, 1, 1, 1]]
    assert start_with_language(target, 1).tolist() == expected


@torch.no_grad()
def test_the_loss_is_the_mean_over_the_tokens_that_are_not_padding(fairseq: Golden) -> None:
    labels = torch.tensor([[7, 8, 2, FRENCH], [9, 2, FRENCH, 1], [9, 2, FRENCH, -100]])
    outputs = fairseq.model(input_ids=fairseq.source, labels=labels)
    chosen = outputs.logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    close(outputs.loss, -chosen[labels.gt(1)].mean())


@torch.no_grad()
def test_the_loss_of_an_accumulated_batch_is_divided_by_its_tokens(fairseq: Golden) -> None:
    labels = torch.tensor([[7, 8, 2, FRENCH]]).expand(3, 4)
    told = {"input_ids": fairseq.source, "labels": labels}
    close(fairseq.model(**told, num_items_in_batch=24).loss, fairseq.model(**told).loss / 2)


@torch.no_grad()
def test_a_saved_model_loads_to_the_same_logits(fairseq: Golden, tmp_path: Path) -> None:
    fairseq.model.save_pretrained(tmp_path)
    again = VecoForConditionalGeneration.from_pretrained(tmp_path).eval()
    close(again(**fairseq.inputs).logits, fairseq.outputs["logits"])
    assert again.lm_head.weight is again.model.decoder.embed_tokens.weight is again.get_input_embeddings().weight


def test_a_saved_config_says_what_it_is(fairseq: Golden, tmp_path: Path) -> None:
    fairseq.model.config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "veco_nlg"
    assert VecoNlgConfig.from_pretrained(tmp_path).decoder_start_token_id is None


def test_layers_that_a_checkpoint_lacks_start_finite_and_small(tmp_path: Path) -> None:
    model = loaded()
    model.keep_decoder_layers([3, 4])
    model.save_pretrained(tmp_path)
    again = VecoForConditionalGeneration.from_pretrained(tmp_path, decoder_layers=3)
    layer = again.model.decoder.layers[2]
    assert 0.01 < layer.fc1.weight.std() < 0.03
    assert not layer.fc1.bias.any()
    assert torch.equal(layer.final_layer_norm.weight, torch.ones(32))


def test_resized_embeddings_stay_tied() -> None:
    model = loaded()
    model.resize_token_embeddings(430)
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight.shape == (430, 32)


@torch.no_grad()
def test_bfloat16_computes_what_float32_does_to_its_precision(fairseq: Golden, tmp_path: Path) -> None:
    fairseq.model.save_pretrained(tmp_path)
    model = VecoForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    logits = model(**fairseq.inputs).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), fairseq.outputs["logits"], rtol=0, atol=0.05)


def test_gradient_checkpointing_changes_no_gradient(fairseq: Golden) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = loaded().train()
        for module in model.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.0
        model.config.dropout = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(input_ids=fairseq.source, labels=fairseq.target).loss.backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_model_computes_the_same(fairseq: Golden) -> None:
    model = loaded()
    model.keep_decoder_layers([3, 4])
    logits = torch.compile(model, fullgraph=True)(**fairseq.inputs, use_cache=False).logits
    close(logits, fairseq.outputs["logits_keep_decoder_layers_3_4"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer as veco-large.tar.gz holds it."""
    shutil.copy(golden("sofa/tokenizers/sentencepiece.bpe.model"), tmp_path)
    shutil.copy(golden("sofa/veco_nlg/dict.txt"), tmp_path)
    return tmp_path


def by_fairseq(folder: Path, text: str) -> list[int]:
    """What spm_encode and fairseq-preprocess make of a text, without its end."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    lines = (folder / "dict.txt").read_text(encoding="utf-8").splitlines()
    ids = {line.rsplit(" ", 1)[0]: place for place, line in enumerate(lines, start=4)}
    return [ids.get(piece, 3) for piece in pieces.encode(text, out_type=str)]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_sentencepiece_and_the_dictionary(folder: Path, text: str) -> None:
    tokenizer = VecoNlgTokenizer.from_pretrained(folder)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == by_fairseq(folder, text)


def test_a_source_ends_in_its_language_as_the_golden_s_do(folder: Path) -> None:
    ids = VecoNlgTokenizer.from_pretrained(folder, src_lang="en")(TEXTS[0])["input_ids"]
    assert ids[-2:] == [2, ENGLISH] == arrays(golden("sofa/veco_nlg/inputs.npz"))["src_tokens"][0, -2:].tolist()


def test_a_target_ends_in_its_own_language(folder: Path) -> None:
    tokenizer = VecoNlgTokenizer.from_pretrained(folder, src_lang="en", tgt_lang="fr")
    rows = tokenizer("the film", text_target="le film")
    assert (rows["input_ids"][-1], rows["labels"][-1]) == (ENGLISH, FRENCH)
    assert tokenizer("the film")["input_ids"] == rows["input_ids"]


def test_without_a_language_a_text_ends_in_eos(folder: Path) -> None:
    assert VecoNlgTokenizer.from_pretrained(folder)("the film")["input_ids"][-1] == 2


def test_the_language_can_be_changed(folder: Path) -> None:
    tokenizer = VecoNlgTokenizer.from_pretrained(folder, src_lang="en")
    tokenizer.src_lang = "fr"
    assert tokenizer("le film")["input_ids"][-1] == FRENCH


def test_the_start_of_a_target_is_its_language_s_id(folder: Path) -> None:
    assert VecoNlgTokenizer.from_pretrained(folder).lang_id("fr") == FRENCH


def test_an_unknown_language_is_refused_with_those_that_are_known(folder: Path) -> None:
    with pytest.raises(ValueError, match="it has: en, fr, de"):
        VecoNlgTokenizer.from_pretrained(folder, src_lang="xx")


def test_decoding_takes_the_language_and_the_marks_away(folder: Path) -> None:
    tokenizer = VecoNlgTokenizer.from_pretrained(folder, src_lang="en")
    assert tokenizer.decode(tokenizer(TEXTS[0])["input_ids"], skip_special_tokens=True) == TEXTS[0]


def test_a_saved_tokenizer_loads_to_the_same_ids(folder: Path, tmp_path: Path) -> None:
    tokenizer = VecoNlgTokenizer.from_pretrained(folder)
    tokenizer.src_lang, tokenizer.tgt_lang = "en", "fr"
    tokenizer.save_pretrained(tmp_path / "saved")
    again = VecoNlgTokenizer.from_pretrained(tmp_path / "saved")
    assert (len(again), again.tgt_lang) == (424, "fr")
    assert again(list(TEXTS))["input_ids"] == tokenizer(list(TEXTS))["input_ids"]


def test_without_the_dictionary_no_ids_are_made_up(folder: Path) -> None:
    (folder / "dict.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"dict\.txt"):
        VecoNlgTokenizer.from_pretrained(folder)("the film")
