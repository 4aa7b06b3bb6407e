"""Make tiny models with random weights in the folder of the second argument, and tell what they answer.

bert/ is a classifier with its tokenizer, sharded/ the same weights in several files, lora/ an adapter to them.
"""

import sys
from pathlib import Path

import torch
from asking import tell
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

SENTENCE = "a cache keeps what was pulled"
folder = Path(sys.argv[2])


def logits(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer(SENTENCE, return_tensors="pt")).logits.tolist()


def make():
    torch.manual_seed(7)
    words = folder / "words.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *SENTENCE.split()]))
    tokenizer = BertTokenizerFast(str(words))
    config = BertConfig(
        vocab_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=3
    )
    model = BertForSequenceClassification(config)
    plain = logits(model, tokenizer)
    for name, shard in (("bert", "1GB"), ("sharded", "20KB")):
        model.save_pretrained(folder / name, max_shard_size=shard)
        tokenizer.save_pretrained(folder / name)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = "org/bert"
    adapted.save_pretrained(folder / "lora")
    return {"ids": tokenizer(SENTENCE)["input_ids"], "plain": plain, "adapted": logits(adapted, tokenizer)}


tell("torch", made=make)
