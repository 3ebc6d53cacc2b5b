"""`python -m clic.cli.data`."""

from clic.cli.data import main

main()
