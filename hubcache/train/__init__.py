"""Fine-tuning and evaluation of cached models, without a network.

No model is defined here (hubcache.models) and nothing is downloaded (hubcache.sources).
"""
