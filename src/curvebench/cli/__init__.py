"""The command line: one file per verb, no logic in them. The table of verbs is in :mod:`curvebench.cli.main`."""
