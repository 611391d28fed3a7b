"""`python -m tunescope` is `tunescope`; `torchrun -m tunescope` runs it on several processes."""

from tunescope.cli import main

main()
