"""`python -m hybridlab.cli`, where no script is installed."""

from hybridlab.cli import main

main()
