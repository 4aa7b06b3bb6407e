"""The originals' entry points, under their own names; the models themselves are in hubcache.models."""
