"""`python -m gradtail`: the same as the `gradtail` command."""

import sys

from gradtail.cli import main

sys.exit(main())
