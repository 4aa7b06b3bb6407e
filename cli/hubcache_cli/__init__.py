"""The command line: arguments in, use cases called, results printed; no logic lives here."""
