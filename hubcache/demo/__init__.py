"""What `hubcache demo` pulls from: small models made on the spot and a server for them; not the command itself."""
