"""The settings that ship with clic, one folder for each group (see `clic.config`)."""
