"""Where the parts are wired and the use cases live; nothing below imports this."""
