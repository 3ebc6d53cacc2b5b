"""The command lines: parse, compose the settings, call, print."""
