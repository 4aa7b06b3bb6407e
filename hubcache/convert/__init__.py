"""Original checkpoints turned into what from_pretrained loads; the models are in hubcache.models."""
