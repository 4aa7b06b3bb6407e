"""Pull models from any hub, verified, into the Hugging Face cache, and load them offline."""

__version__ = "0.1.0"
