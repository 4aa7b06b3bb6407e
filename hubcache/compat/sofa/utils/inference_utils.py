"""SOFA's module of custom pipelines, by its name there; nothing is defined here."""

from hubcache.compat.sofa.inference import InferenceBase

__all__ = ["InferenceBase"]
