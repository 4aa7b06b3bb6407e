"""SOFA's modules of model families, by their names there; the classes are those of hubcache.models."""

from hubcache.compat.sofa.models import palm, sbert, veco

__all__ = ["palm", "sbert", "veco"]
