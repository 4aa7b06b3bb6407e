"""The KE-T5 heads: the reference's numbers, its keys, its initialisation, and what it could not do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open

from hubcache.models import t5_encoder
from tests.support.goldens import golden

pytestmark = pytest.mark.train

ATOL = 1e-4  # goldens/ket5/README.md
SIMPLE, MEAN = "T5EncoderForSequenceClassificationSimple", "T5EncoderForSequenceClassificationMean"
RE = "T5EncoderForSequenceClassificationRE"
FIRST = "T5EncoderForSequenceClassificationFirstSubmeanObjmean"
TAGGER, CRF = "T5EncoderForTokenClassification", "T5EncoderForEntityRecognitionWithCRF"
CRF_GOLDEN = f"{CRF}-5tags"

SENTENCE_GOLDENS = (
    f"{SIMPLE}-relu-single_label_classification",
    f"{SIMPLE}-relu-multi_label_classification",
    f"{SIMPLE}-gated-gelu-single_label_classification",
    f"{MEAN}-relu-single_label_classification",
    f"{MEAN}-relu-multi_label_classification",
    f"{MEAN}-relu-regression",
)
SPAN_GOLDENS = (RE, FIRST, f"{RE}Attention", f"{RE}AttentionAlone", f"{RE}MeanAttention")
RELATION_GOLDENS = (*SPAN_GOLDENS, f"{RE}StartToken")
LOGITS_GOLDENS = (*SENTENCE_GOLDENS, *RELATION_GOLDENS, TAGGER)
GENERATION_GOLDENS = ("T5ForConditionalGeneration-relu", "T5ForConditionalGeneration-gated-gelu-untied")
CLASSES = (*t5_encoder.SEQUENCE_CLASSIFIERS, *t5_encoder.TOKEN_CLASSIFIERS)
RELATION_CLASSES = tuple(model for model in CLASSES if issubclass(model, t5_encoder.T5EncoderRelationHead))
LABELS = 5


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices of 32 by 32 cost more to share out among threads than to multiply."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def folder_of(name: str) -> Path:
    return golden(f"ket5/models/{name}")


def meta_of(name: str) -> dict[str, Any]:
    return json.loads((folder_of(name) / "meta.json").read_text())


def arrays_of(name: str) -> dict[str, Any]:
    with np.load(folder_of(name) / "io.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def loaded(name: str, **settings: Any) -> Any:
    model = getattr(t5_encoder, meta_of(name)["model"])
    return model.from_pretrained(folder_of(name), **settings).eval()


def inputs_of(arrays: dict[str, Any], *extra: str) -> dict[str, Any]:
    given = ("input_ids", "attention_mask", "entity_token_idx", *extra)
    return {key: arrays[key] for key in given if key in arrays}


def near(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, atol=ATOL, rtol=0)


def tiny_config(**settings: Any) -> Any:
    sizes = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return transformers.T5Config(**{**sizes, "num_labels": LABELS, "decoder_start_token_id": 0, **settings})


def tiny(model: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    return model(tiny_config(**settings)).eval()


def tiny_batch(model: Any) -> dict[str, Any]:
    """Three sequences of 9, 6 and 8 tokens with labels that fit the class."""
    torch.manual_seed(1)
    lengths = torch.tensor([[9], [6], [8]])
    mask = (torch.arange(9) < lengths).long()
    batch = {"input_ids": torch.randint(2, 96, (3, 9)) * mask, "attention_mask": mask}
    if model in RELATION_CLASSES:
        batch["entity_token_idx"] = torch.tensor([[[1, 3], [5, 8]], [[0, 2], [3, 5]], [[4, 6], [1, 2]]])
    shape = (3, 9) if model in t5_encoder.TOKEN_CLASSIFIERS else (3,)
    return {**batch, "labels": torch.randint(0, LABELS, shape)}


def scores_of(outputs: Any) -> Any:
    """The tensor that a class computes: the CRF's decoded lists are no tensor, its emissions are."""
    return outputs.emissions if isinstance(outputs.logits, list) else outputs.logits


# The reference's numbers


@pytest.mark.parametrize("name", LOGITS_GOLDENS)
def test_logits_and_loss_are_the_references(name: str) -> None:
    arrays = arrays_of(name)
    outputs = loaded(name)(**inputs_of(arrays, "labels"))
    near((outputs.logits, outputs.loss), (arrays["logits"], arrays["loss"]))


@pytest.mark.parametrize("name", [*LOGITS_GOLDENS, CRF_GOLDEN])
def test_gradients_are_the_references(name: str) -> None:
    arrays, model = arrays_of(name), loaded(name)
    model(**inputs_of(arrays, "labels")).loss.backward()
    wanted = {key.removeprefix("grad."): value for key, value in arrays.items() if key.startswith("grad.")}
    near({key: model.get_parameter(key).grad for key in wanted}, wanted)


@pytest.mark.parametrize("name", SENTENCE_GOLDENS)
def test_the_pooled_vector_is_the_references(name: str) -> None:
    arrays, model = arrays_of(name), loaded(name)
    outputs = model(**inputs_of(arrays), output_hidden_states=True)
    near(outputs.hidden_states[-1], arrays["last_hidden_state"])
    near(model.pooler(outputs.hidden_states[-1], arrays["attention_mask"]), arrays["pooled"])


def test_the_regression_loss_of_one_row_is_the_references() -> None:
    arrays, model = arrays_of(f"{MEAN}-relu-regression"), loaded(f"{MEAN}-relu-regression")
    row = {key: value[:1] for key, value in inputs_of(arrays, "labels").items()}
    near(model(**row).loss, arrays["loss_batch1"])


@pytest.mark.parametrize("name", [*(each for each in SENTENCE_GOLDENS if SIMPLE in each), TAGGER])
def test_logits_without_a_mask_are_the_references(name: str) -> None:
    arrays = arrays_of(name)
    near(loaded(name)(input_ids=arrays["input_ids"]).logits, arrays["logits_no_mask"])


def test_the_tagging_loss_without_a_mask_is_the_references() -> None:
    arrays = arrays_of(TAGGER)
    near(loaded(TAGGER)(input_ids=arrays["input_ids"], labels=arrays["labels"]).loss, arrays["loss_no_mask"])


def test_the_tagging_loss_passes_over_ignored_labels_as_the_references() -> None:
    arrays = arrays_of(TAGGER)
    outputs = loaded(TAGGER)(**inputs_of(arrays), labels=arrays["labels_with_ignore"])
    near(outputs.loss, arrays["loss_with_ignore"])


def test_crf_loss_and_emissions_are_the_references() -> None:
    arrays = arrays_of(CRF_GOLDEN)
    outputs = loaded(CRF_GOLDEN)(**inputs_of(arrays, "labels"))
    near((outputs.emissions, outputs.loss), (arrays["emissions"], arrays["loss"]))


def test_crf_log_likelihood_of_each_sequence_is_the_references() -> None:
    arrays, model = arrays_of(CRF_GOLDEN), loaded(CRF_GOLDEN)
    emissions = model(**inputs_of(arrays)).emissions
    found = model.crf(emissions, arrays["labels"], mask=arrays["attention_mask"].bool(), reduction="none")
    near(found, arrays["llh_per_sequence"])


def test_crf_logits_are_the_references_lists_of_true_length() -> None:
    arrays = arrays_of(CRF_GOLDEN)
    decoded = loaded(CRF_GOLDEN)(**inputs_of(arrays)).logits
    assert decoded == meta_of(CRF_GOLDEN)["decoded"]
    assert [len(path) for path in decoded] == arrays["decoded_lengths"].tolist()
    assert [path + [-1] * (9 - len(path)) for path in decoded] == arrays["decoded_padded_minus1"].tolist()


@pytest.mark.parametrize("name", [name for name in RELATION_GOLDENS if "Attention" not in name])
def test_relation_logits_of_one_row_are_the_references(name: str) -> None:
    arrays = arrays_of(name)
    row = {key: value[:1] for key, value in inputs_of(arrays).items()}
    near(loaded(name)(**row).logits, arrays["logits_batch1"])


def test_the_losses_of_eight_training_steps_are_the_references() -> None:
    arrays = arrays_of(f"train8-{MEAN}")
    model = loaded(f"train8-{MEAN}").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=1e-2)
    losses = []
    for _ in range(8):
        loss = model(**inputs_of(arrays, "labels")).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    near(torch.tensor(losses, dtype=torch.float64), arrays["losses"])


@pytest.mark.parametrize("name", GENERATION_GOLDENS)
def test_transformers_own_t5_scores_as_the_reference(name: str) -> None:
    arrays = arrays_of(name)
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder_of(name)).eval()
    outputs = model(**inputs_of(arrays, "labels"))
    near((outputs.logits, outputs.loss), (arrays["logits"], arrays["loss_pad_counted"]))
    near(model(**inputs_of(arrays), labels=arrays["labels_minus100"]).loss, arrays["loss_minus100"])
    assert torch.equal(outputs.logits.argmax(-1), arrays["argmax_ids"])


@pytest.mark.parametrize("settings", ["greedy_max5", "greedy_max10", "mrc_beam4_max30", "summ_beam4"])
@pytest.mark.parametrize("name", GENERATION_GOLDENS)
def test_transformers_own_t5_generates_as_the_reference(name: str, settings: str) -> None:
    arrays, keywords = arrays_of(name), meta_of(name)["generate_kwargs"][settings]
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder_of(name)).eval()
    assert torch.equal(model.generate(**inputs_of(arrays), **keywords), arrays[f"gen.{settings}"])


@pytest.mark.parametrize("settings", ["greedy_max5", "greedy_max10", "mrc_beam4_max30", "summ_beam4"])
@pytest.mark.parametrize("name", GENERATION_GOLDENS)
def test_what_old_generation_made_of_ids_alone_needs_their_mask_today(name: str, settings: str) -> None:
    arrays, keywords = arrays_of(name), meta_of(name)["generate_kwargs"][settings]
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder_of(name)).eval()
    mask = (arrays["input_ids"] != model.config.pad_token_id).long()
    found = model.generate(input_ids=arrays["input_ids"], attention_mask=mask, **keywords)
    assert torch.equal(found, arrays[f"gen_input_ids_only.{settings}"])


# Keys, configuration, files


@pytest.mark.parametrize("model", CLASSES)
def test_a_saved_checkpoint_has_the_references_keys(model: Any, tmp_path: Path) -> None:
    index = json.loads(folder_of("index.json").read_text())
    wanted = next(entry["keys"] for entry in index.values() if entry["model"] == model.__name__)
    tiny(model).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        assert sorted(weights.keys()) == sorted(wanted)


@pytest.mark.parametrize("model", CLASSES)
def test_what_is_saved_loads_to_the_same_scores(model: Any, tmp_path: Path) -> None:
    saved, batch = tiny(model), tiny_batch(model)
    saved.save_pretrained(tmp_path)
    again, report = model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(scores_of(again.eval()(**batch)), scores_of(saved(**batch)))


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem"),
    [
        (1, torch.tensor([0.5, 2.0, -1.0]), "regression"),
        (3, torch.tensor([2, 0, 1]), "single_label_classification"),
        (3, torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 1, 0]]), "multi_label_classification"),
    ],
)
def test_the_first_loss_writes_its_problem_type_into_the_configuration(
    num_labels: int, labels: Any, problem: str
) -> None:
    model = tiny(t5_encoder.T5EncoderForSequenceClassificationMean, num_labels=num_labels)
    batch = tiny_batch(type(model)) | {"labels": labels}
    assert model.config.problem_type is None
    model(**batch)
    assert model.config.problem_type == problem


# Initialisation


def head_parameters(model: Any) -> dict[str, Any]:
    return {name: value for name, value in model.named_parameters() if not name.startswith(("shared.", "encoder."))}


@pytest.fixture(scope="module")
def plain_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain-t5")
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(tiny_config(d_model=64)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model", CLASSES)
def test_a_plain_t5_checkpoint_fills_the_encoder_and_nothing_of_it_is_unexpected(model: Any, plain_t5: Path) -> None:
    whole = transformers.T5ForConditionalGeneration.from_pretrained(plain_t5)
    loaded_on_it, report = model.from_pretrained(plain_t5, num_labels=LABELS, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert report["missing_keys"] == set(head_parameters(loaded_on_it))
    wanted = whole.encoder.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded_on_it.encoder.state_dict().items())


@pytest.mark.parametrize("model", CLASSES)
def test_missing_dense_layers_are_drawn_as_torch_draws_its_own(model: Any, plain_t5: Path) -> None:
    torch.manual_seed(0)
    head = model.from_pretrained(plain_t5, num_labels=400)
    for layer in (
        module for module in head.modules() if isinstance(module, torch.nn.Linear) and module.bias is not None
    ):
        bound = layer.in_features**-0.5
        for parameter in (layer.weight, layer.bias):
            assert parameter.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
        assert layer.bias.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)


def test_missing_crf_parameters_are_drawn_between_minus_and_plus_a_tenth(plain_t5: Path) -> None:
    torch.manual_seed(0)
    crf = t5_encoder.T5EncoderForEntityRecognitionWithCRF.from_pretrained(plain_t5, num_labels=400).crf
    for parameter in (crf.start_transitions, crf.end_transitions, crf.transitions):
        assert parameter.abs().max() <= 0.1
        assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("model", CLASSES)
def test_a_head_built_from_its_configuration_is_drawn_likewise(model: Any) -> None:
    torch.manual_seed(0)
    assert all(parameter.abs().max() <= 32**-0.5 for parameter in head_parameters(tiny(model)).values())


# What the reference could not do


@pytest.mark.parametrize("name", RELATION_GOLDENS)
def test_with_the_switch_an_empty_span_scores_as_in_the_reference(name: str) -> None:
    arrays = arrays_of(name)
    inputs = inputs_of(arrays) | {"entity_token_idx": arrays["entity_token_idx_empty_span"]}
    found = loaded(name, empty_span_is_nan=True)(**inputs).logits
    torch.testing.assert_close(found, arrays["logits_empty_span"], atol=ATOL, rtol=0, equal_nan=True)


@pytest.mark.parametrize("name", SPAN_GOLDENS)
def test_an_empty_span_is_read_at_its_start(name: str) -> None:
    arrays, model = arrays_of(name), loaded(name)
    empty = arrays["entity_token_idx_empty_span"]
    one_token = empty.clone()
    one_token[0, 0, 1] += 1
    found = model(**inputs_of(arrays) | {"entity_token_idx": empty}).logits
    assert torch.isfinite(found).all()
    assert torch.equal(found, model(**inputs_of(arrays) | {"entity_token_idx": one_token}).logits)


@pytest.mark.parametrize("model", RELATION_CLASSES)
def test_an_entity_that_was_cut_off_is_read_at_the_last_position(model: Any) -> None:
    head, batch = tiny(model), tiny_batch(model)
    beyond, last = batch["entity_token_idx"].clone(), batch["entity_token_idx"].clone()
    beyond[0, 1], last[0, 1] = torch.tensor([20, 22]), torch.tensor([8, 9])
    found = head(**batch | {"entity_token_idx": beyond}).logits
    assert torch.equal(found, head(**batch | {"entity_token_idx": last}).logits)


@pytest.mark.parametrize("name", [name for name in SPAN_GOLDENS if "Attention" in name])
def test_an_attention_head_scores_one_row_as_in_a_batch(name: str) -> None:
    arrays = arrays_of(name)
    row = {key: value[:1] for key, value in inputs_of(arrays).items()}
    near(loaded(name)(**row).logits, arrays["logits"][:1])


@pytest.mark.parametrize("model", CLASSES)
def test_without_a_mask_all_tokens_count(model: Any) -> None:
    head, batch = tiny(model), tiny_batch(model)
    whole = head(**batch | {"attention_mask": torch.ones(3, 9, dtype=torch.long)})
    del batch["attention_mask"]
    found = head(**batch)
    torch.testing.assert_close((scores_of(found), found.loss), (scores_of(whole), whole.loss))


@pytest.mark.parametrize("model", RELATION_CLASSES)
def test_a_relation_head_takes_its_spans_as_lists(model: Any) -> None:
    head, batch = tiny(model), tiny_batch(model)
    lists = batch | {"entity_token_idx": batch["entity_token_idx"].tolist()}
    assert torch.equal(head(**lists).logits, head(**batch).logits)


@pytest.mark.parametrize("model", RELATION_CLASSES)
def test_a_relation_head_without_spans_says_what_it_needs(model: Any) -> None:
    batch = tiny_batch(model)
    del batch["entity_token_idx"]
    with pytest.raises(ValueError, match="needs entity_token_idx"):
        tiny(model)(**batch)


@pytest.mark.parametrize("model", t5_encoder.SEQUENCE_CLASSIFIERS)
def test_a_regression_compares_each_row_with_its_own_label(model: Any) -> None:
    head, labels = tiny(model, num_labels=1), torch.tensor([0.5, 2.0, -1.0])
    outputs = head(**tiny_batch(model) | {"labels": labels})
    torch.testing.assert_close(outputs.loss, ((outputs.logits.flatten() - labels) ** 2).mean())


@pytest.mark.parametrize("model", t5_encoder.SEQUENCE_CLASSIFIERS)
def test_several_labels_may_hold_at_once(model: Any) -> None:
    labels = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 1]])
    outputs = tiny(model)(**tiny_batch(model) | {"labels": labels})
    likely = outputs.logits.reshape(3, LABELS).sigmoid()
    wanted = -torch.where(labels == 1, likely, 1 - likely).log().mean()
    torch.testing.assert_close(outputs.loss, wanted)


def test_crf_labels_of_padding_may_be_minus_100() -> None:
    arrays = arrays_of(CRF_GOLDEN)
    labels = arrays["labels"].masked_fill(arrays["attention_mask"] == 0, -100)
    near(loaded(CRF_GOLDEN)(**inputs_of(arrays), labels=labels).loss, arrays["loss"])


def test_crf_leaves_a_token_labelled_minus_100_out_of_the_chain() -> None:
    head = tiny(t5_encoder.T5EncoderForEntityRecognitionWithCRF)
    batch, kept = tiny_batch(type(head)), [0, 2, 3, 4, 5]
    holed = torch.full_like(batch["labels"], -100)
    holed[:, kept] = batch["labels"][:, kept]
    outputs = head(**batch | {"labels": holed})
    torch.testing.assert_close(outputs.loss, -head.crf(outputs.emissions[:, kept], holed[:, kept]))


# CRF scores instead of lists


def test_with_crf_scores_the_best_label_of_each_token_is_on_the_decoded_path() -> None:
    arrays = arrays_of(CRF_GOLDEN)
    scores = loaded(CRF_GOLDEN, crf_scores=True)(**inputs_of(arrays)).logits
    assert scores.shape == arrays["emissions"].shape
    lengths = arrays["decoded_lengths"].tolist()
    found = [row[:length].tolist() for row, length in zip(scores.argmax(-1), lengths, strict=True)]
    assert found == meta_of(CRF_GOLDEN)["decoded"]


def words_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, 96)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


def test_the_token_classification_pipeline_gives_the_decoded_path() -> None:
    arrays = arrays_of(CRF_GOLDEN)
    model = loaded(CRF_GOLDEN, crf_scores=True)
    tagger = transformers.pipeline("token-classification", model=model, tokenizer=words_tokenizer(), ignore_labels=[])
    rows = [row[row > 2].tolist() for row in arrays["input_ids"]]
    texts = [" ".join(f"w{number}" for number in row) for row in rows if row]
    wanted = loaded(CRF_GOLDEN)
    for text, row in zip(texts, (row for row in rows if row), strict=True):
        path = wanted(input_ids=torch.tensor([row])).logits[0]
        assert [entity["entity"] for entity in tagger(text)] == [f"LABEL_{tag}" for tag in path]


def training_arguments(folder: Path, **settings: Any) -> Any:
    return transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, save_strategy="no", disable_tqdm=True, seed=0, **settings
    )


def rows_of(batch: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value[row] for key, value in batch.items()} for row in range(len(batch["input_ids"]))]


def test_trainer_trains_and_evaluates_the_crf_by_its_scores(tmp_path: Path) -> None:
    head = tiny(t5_encoder.T5EncoderForEntityRecognitionWithCRF, crf_scores=True)
    rows = rows_of(tiny_batch(type(head)))
    arguments = training_arguments(tmp_path, num_train_epochs=3, per_device_train_batch_size=2, learning_rate=1e-2)
    trainer = transformers.Trainer(head, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    assert trainer.predict(rows).predictions.shape == (3, 9, LABELS)


@pytest.mark.parametrize("name", [MEAN, RE, f"{RE}Attention"])
def test_trainer_trains_and_evaluates_a_sequence_classifier(name: str, tmp_path: Path) -> None:
    model = getattr(t5_encoder, name)
    head, rows = tiny(model), rows_of(tiny_batch(model))
    arguments = training_arguments(tmp_path, num_train_epochs=3, per_device_train_batch_size=2, learning_rate=1e-2)
    trainer = transformers.Trainer(head, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


def test_accumulated_batches_step_like_one_large_batch(tmp_path: Path) -> None:
    rows = rows_of(tiny_batch(t5_encoder.T5EncoderForSequenceClassificationMean))[:2]
    stepped = []
    for size, accumulated in ((2, 1), (1, 2)):
        head = tiny(t5_encoder.T5EncoderForSequenceClassificationMean, dropout_rate=0.0)
        arguments = training_arguments(
            tmp_path,
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
        )
        transformers.Trainer(head, arguments, train_dataset=rows).train()
        stepped.append(head.classifier.weight.detach())
    torch.testing.assert_close(stepped[0], stepped[1], atol=1e-6, rtol=0)


# The platform's own ways


@pytest.mark.parametrize("model", CLASSES)
def test_a_tuple_has_loss_then_logits(model: Any) -> None:
    head, batch = tiny(model), tiny_batch(model)
    named, plain = head(**batch), head(**batch, return_dict=False)
    assert torch.equal(plain[0], named.loss)
    assert plain[1] == named.logits if isinstance(named.logits, list) else torch.equal(plain[1], named.logits)


@pytest.mark.parametrize("model", CLASSES)
def test_a_configuration_may_ask_for_tuples(model: Any) -> None:
    head = tiny(model, return_dict=False)
    assert isinstance(head(**tiny_batch(model)), tuple)


@pytest.mark.parametrize("model", CLASSES)
def test_attention_by_sdpa_scores_as_eager_does(model: Any) -> None:
    batch = tiny_batch(model)
    eager = tiny(model, attn_implementation="eager")(**batch)
    torch.testing.assert_close(scores_of(tiny(model, attn_implementation="sdpa")(**batch)), scores_of(eager))


@pytest.mark.parametrize("model", CLASSES)
def test_eager_attention_shows_its_weights(model: Any) -> None:
    head = tiny(model, attn_implementation="eager")
    attentions = head(**tiny_batch(model), output_attentions=True).attentions
    assert [each.shape for each in attentions] == [(3, 4, 9, 9)] * 2


@pytest.mark.parametrize("model", CLASSES)
def test_gradient_checkpointing_changes_no_gradient(model: Any) -> None:
    batch, gradients = tiny_batch(model), []
    for checkpointed in (False, True):
        head = tiny(model, dropout_rate=0.0).train()
        if checkpointed:
            head.gradient_checkpointing_enable()
        head(**batch).loss.backward()
        gradients.append({name: value.grad for name, value in head.named_parameters() if value.grad is not None})
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("model", CLASSES)
def test_a_bfloat16_checkpoint_scores_and_trains_in_bfloat16(model: Any, tmp_path: Path) -> None:
    tiny(model).save_pretrained(tmp_path)
    head = model.from_pretrained(tmp_path, dtype=torch.bfloat16)
    outputs = head(**tiny_batch(model))
    outputs.loss.backward()
    assert scores_of(outputs).dtype == head.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.bfloat16
    assert torch.isfinite(outputs.loss)
    assert all(torch.isfinite(value.grad).all() for value in head.parameters() if value.grad is not None)


def test_only_in_float16_the_last_dense_layer_stays_float32(tmp_path: Path) -> None:
    tiny(t5_encoder.T5EncoderForSequenceClassificationMean).save_pretrained(tmp_path)
    head = t5_encoder.T5EncoderForSequenceClassificationMean.from_pretrained(tmp_path, dtype=torch.float16)
    assert head.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32
    assert head.classifier.weight.dtype == torch.float16


@pytest.mark.parametrize("model", CLASSES)
def test_an_automatic_device_map_loads_and_scores_the_same(model: Any, tmp_path: Path) -> None:
    saved, batch = tiny(model), tiny_batch(model)
    saved.save_pretrained(tmp_path)
    head = model.from_pretrained(tmp_path, device_map="auto").eval()
    assert torch.equal(scores_of(head(**batch)), scores_of(saved(**batch)))


@pytest.mark.parametrize("model", [model for model in CLASSES if model.__name__ != CRF])
def test_all_but_the_crf_compile_to_one_graph_with_the_same_scores(model: Any) -> None:
    torch.compiler.reset()
    head, batch = tiny(model), tiny_batch(model)
    found = torch.compile(head, backend="eager", fullgraph=True)(**batch)
    torch.testing.assert_close((found.loss, found.logits), head(**batch, return_dict=False))


@pytest.mark.parametrize("crf_scores", [False, True])
def test_the_crf_compiles_to_the_same_result(crf_scores: bool) -> None:
    head = tiny(t5_encoder.T5EncoderForEntityRecognitionWithCRF, crf_scores=crf_scores)
    batch = tiny_batch(type(head))
    found, wanted = torch.compile(head, backend="eager")(**batch), head(**batch)
    torch.testing.assert_close((found.loss, found.logits), (wanted.loss, wanted.logits))


def test_resized_embeddings_stay_those_of_the_encoder() -> None:
    head = tiny(t5_encoder.T5EncoderForSequenceClassificationSimple)
    head.resize_token_embeddings(100)
    assert head.encoder.embed_tokens.weight is head.shared.weight
    assert head.shared.weight.shape == (100, 32)
