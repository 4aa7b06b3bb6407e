"""Unmodified Python clients against `hubcache serve`; the clients of the web are in tests/test_clients_web.py."""
