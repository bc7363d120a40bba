"""`python -m smt_hf` is `smt-hf`."""

import sys

from smt_hf.cli import main

sys.exit(main())
