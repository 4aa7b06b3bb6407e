"""SOFA's module of Child-Tuning, by its name there; hubcache.train.child_tuning is what it is."""

from hubcache.train.child_tuning import ChildTuningAdamW, apply_child_tuning, apply_child_tuning_to_trainer

__all__ = ["ChildTuningAdamW", "apply_child_tuning", "apply_child_tuning_to_trainer"]
