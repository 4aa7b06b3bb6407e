"""One hub a file, each a Source; which mirror is asked, and what is cached, is decided elsewhere."""
