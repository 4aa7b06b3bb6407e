"""Running a command so that nothing it does reaches beyond this machine; what it is told of the cache is not here."""
