"""`python -m dpplan` is `dpplan`."""

from __future__ import annotations

import sys

from dpplan.cli import main

sys.exit(main())
