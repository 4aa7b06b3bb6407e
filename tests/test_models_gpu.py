"""The models on a CUDA device against the originals' numbers, in float32 and bfloat16; skipped where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.goldens import golden

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
models = pytest.importorskip("hubcache.models")

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

# The READMEs' tolerances are those of a re-implementation on the same CPU; another device sums in another order.
FLOAT32 = 2e-5
BFLOAT16 = 0.06
"""Of the largest value: bfloat16 keeps 8 bits, and errors grow over the layers."""

SOFA = [
    "sbert/base", "sbert/seqcls_single", "sbert/mlm", "sbert/pretraining", "sbert/qa", "sbert/multichoice",
    "veco/base", "veco/seqcls_single", "veco/seqcls_multilabel", "veco/tokcls", "veco/multichoice",
]  # fmt: skip
KET5 = [
    "T5EncoderForSequenceClassificationSimple-relu-single_label_classification",
    "T5EncoderForSequenceClassificationSimple-gated-gelu-single_label_classification",
    "T5EncoderForSequenceClassificationMean-relu-single_label_classification",
    "T5EncoderForSequenceClassificationRE",
    "T5EncoderForSequenceClassificationFirstSubmeanObjmean",
    "T5EncoderForSequenceClassificationREAttention",
    "T5EncoderForSequenceClassificationREMeanAttention",
    "T5EncoderForSequenceClassificationREStartToken",
    "T5EncoderForTokenClassification",
]
DTYPES = [pytest.param(torch.float32, id="float32"), pytest.param(torch.bfloat16, id="bfloat16")]


@pytest.fixture(autouse=True, scope="module")
def _exact_products() -> Iterator[None]:
    """Multiply float32 as float32, not as TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as stored:
        return {name: torch.from_numpy(np.asarray(stored[name])) for name in stored}


def to_cuda(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.cuda() for name, value in batch.items()}


def close(found: Any, want: Any, dtype: Any) -> None:
    most = FLOAT32 if dtype is torch.float32 else BFLOAT16 * max(1.0, want.abs().max().item())
    torch.testing.assert_close(found.float().cpu(), want.float(), rtol=0, atol=most)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOFA)
def test_structbert_and_veco_compute_the_originals_numbers(name: str, dtype: Any) -> None:
    folder = golden(f"sofa/{name}")
    made = getattr(models, json.loads((folder / "meta.json").read_text())["class_name"])
    model = made.from_pretrained(folder, dtype=dtype).cuda().eval()
    want = arrays(folder / "outputs.npz")
    with torch.no_grad():
        found = model(**to_cuda(arrays(folder / "inputs.npz")))
    compared = [key for key in ("last_hidden_state", "pooler_output", "logits", "loss", "start_logits", "end_logits",
                                "prediction_logits", "seq_relationship_logits") if key in want]  # fmt: skip
    assert compared
    for key in compared:
        close(found[key], want[key], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["default_preln", "preln_separate"])
def test_palm_computes_the_originals_numbers(variant: str, dtype: Any) -> None:
    folder = golden(f"sofa/palm/{variant}")
    model = models.PalmForConditionalGeneration.from_pretrained(folder, dtype=dtype).cuda().eval()
    model.config.loss_over_padding = True
    batch = to_cuda(arrays(folder / "batchify.npz"))
    want = arrays(folder / "outputs.npz")
    with torch.no_grad():
        loss, logits = model(**batch)
    close(loss, want["loss"], dtype)
    close(logits, want["logits"], dtype)


def test_palms_beam_search_finds_what_the_original_found() -> None:
    folder = golden("sofa/palm/generation_undertrained")
    model = models.PalmForConditionalGeneration.from_pretrained(folder).cuda().eval()
    batch = to_cuda(arrays(folder / "inputs.npz"))
    told = json.loads((folder / "outputs.json").read_text())
    symbols = {"[CLS]": told["start_token"], "[SEP]": told["end_token"]}
    for run in told["runs"]:
        sizes = {key: run[key] for key in ("beam_size", "min_length", "max_length")}
        search = models.TextGenerator(model, None, symbols, **sizes)
        found = search.translate_batch([batch[key] for key in ("input_tokens", "token_type_ids", "attention_mask")])
        assert [each[0].tolist() for each in found["predictions"]] == run["predictions"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_veco_encoder_decoder_computes_the_originals_numbers(dtype: Any) -> None:
    from tests.test_models_veco_nlg import loaded

    inputs, want = (arrays(golden("sofa/veco_nlg") / f"{name}.npz") for name in ("inputs", "outputs"))
    source, target = inputs["src_tokens"].cuda(), inputs["prev_output_tokens"].cuda()
    with torch.no_grad():
        found = loaded().to(dtype).cuda()(
            input_ids=source, attention_mask=(source != 1).long(), decoder_input_ids=target,
            decoder_attention_mask=(target != 1).long(),
        )  # fmt: skip
    close(found.logits, want["logits"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KET5)
def test_the_ke_t5_heads_compute_the_originals_numbers(name: str, dtype: Any) -> None:
    folder = golden(f"ket5/models/{name}")
    model = getattr(models, name.partition("-")[0]).from_pretrained(folder, dtype=dtype).cuda().eval()
    stored = arrays(folder / "io.npz")
    batch = {key: stored[key] for key in ("input_ids", "attention_mask", "labels", "entity_token_idx") if key in stored}
    with torch.no_grad():
        found = model(**to_cuda(batch))
    close(found.logits, stored["logits"], dtype)
    close(found.loss, stored["loss"], dtype)


def test_the_crf_head_decodes_and_learns_as_the_original_did() -> None:
    folder = golden("ket5/models/T5EncoderForEntityRecognitionWithCRF-5tags")
    model = models.T5EncoderForEntityRecognitionWithCRF.from_pretrained(folder).cuda().eval()
    stored = arrays(folder / "io.npz")
    found = model(**to_cuda({key: stored[key] for key in ("input_ids", "attention_mask", "labels")}))
    assert found.logits == json.loads((folder / "meta.json").read_text())["decoded"]
    torch.testing.assert_close(found.loss.cpu(), stored["loss"], rtol=0, atol=1e-4)
    found.loss.backward()
    torch.testing.assert_close(model.crf.transitions.grad.cpu(), stored["grad.crf.transitions"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["small", "nomask", "large_scores"])
def test_the_crf_gives_the_references_numbers(name: str) -> None:
    stored = arrays(golden("ket5/crf") / f"{name}.npz")
    crf = models.LinearChainCRF(stored["transitions"].shape[0], batch_first=True).cuda()
    crf.load_state_dict({key: stored[key] for key in ("start_transitions", "end_transitions", "transitions")})
    emissions = stored["emissions"].cuda().requires_grad_()
    tags, mask = stored["tags"].cuda(), stored["mask"].cuda()
    found = crf(emissions, tags, mask, reduction="none")
    torch.testing.assert_close(found.cpu(), stored["llh_none"], rtol=1e-5, atol=1e-4)
    (-found.sum()).backward()
    torch.testing.assert_close(emissions.grad.cpu(), stored["grad_emissions_of_neg_sum"], rtol=1e-4, atol=1e-4)
    lengths = stored["mask"].sum(1).tolist()
    want = [row[:count].tolist() for row, count in zip(stored["decode_padded_minus1"], lengths, strict=True)]
    assert crf.decode(emissions.detach(), mask) == want


def model_of(folder: Path, **options: Any) -> Any:
    """Load a golden's model as the class that it is of."""
    name = json.loads((folder / "meta.json").read_text())["class_name"]
    return getattr(models, name).from_pretrained(folder, **options)


def batch_of(folder: Path) -> dict[str, Any]:
    """Read a golden's inputs, by the names that its class takes."""
    file = "batchify.npz" if folder.parent.name == "palm" else "inputs.npz"
    return to_cuda(arrays(folder / file))


TRAINED = ["sofa/sbert/seqcls_single", "sofa/veco/seqcls_single", "sofa/palm/default_preln"]


@pytest.mark.parametrize("name", TRAINED)
def test_device_map_auto_places_the_model_on_the_device(name: str) -> None:
    folder = golden(name)
    model = model_of(folder, device_map="auto").eval()
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    with torch.no_grad():
        found = model(**batch_of(folder))
    close(found[1], arrays(folder / "outputs.npz")["logits"], torch.float32)


@pytest.mark.parametrize("name", TRAINED)
def test_a_bfloat16_step_trains(name: str) -> None:
    # Without dropout, so that only the steps move the loss.
    model = model_of(golden(name), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).cuda().train()
    model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = batch_of(golden(name))
    losses = []
    for _ in range(20):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(**batch)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
