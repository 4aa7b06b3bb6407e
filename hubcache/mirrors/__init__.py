"""Which endpoints carry a hub's content."""
