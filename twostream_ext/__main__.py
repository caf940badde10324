# SPDX-License-Identifier: BSD-3-Clause
"""`python -m twostream_ext` is the `twostream` command."""

import sys

from twostream_ext.cli import main

sys.exit(main())
