"""Original checkpoints turned into what from_pretrained loads; the models are in hubcache.models.

Importing this costs nothing: checkpoint.py has what there is to call.
"""

RULES = 1
"""Counts up with every change of what a conversion writes: a cached one that was made by others is made anew."""
