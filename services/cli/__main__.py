"""`python -m services.cli` is `tides`."""

from services.cli import main

main()
