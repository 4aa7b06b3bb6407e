"""SOFA's tutorial, PALM fine-tuned to generate: the import line changed; tests/test_compat_sofa_tutorial.py runs it."""

import sys

from hubcache.compat.sofa import environ, run_generation_hf

environ("huggingface")
model_path, train_file, output_dir = sys.argv[1:]

run_generation_hf(
    pretrain_model_path=model_path,
    output_dir=output_dir,
    task_type="generation",
    train_file_path=train_file,
    dataset_name="text",
    dev_file_path=train_file,
    child_tuning_type=None,
    sequence_length=16,
    target_length=8,
    learning_rate=1e-2,
    per_device_train_batch_size=4,
    num_train_epochs=3,
    evaluation_strategy="no",
    save_strategy="epoch",
)
