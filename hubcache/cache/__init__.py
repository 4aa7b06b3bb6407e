"""The Hugging Face cache on disk: read, written, verified; nothing here opens a connection."""
