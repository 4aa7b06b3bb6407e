"""The models whose toolkits are gone, under their reference names; importing this registers them with transformers.

No conversion happens here: hubcache/convert makes what is loaded here out of the original checkpoints.
"""
