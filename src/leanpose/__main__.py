"""`python -m leanpose`, and so `torchrun -m leanpose`."""

from leanpose.cli import main

main()
