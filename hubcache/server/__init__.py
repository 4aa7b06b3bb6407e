"""The cache as a Hub: HTTP in, the answers of a graph of sources out; nothing here asks a network by itself."""
