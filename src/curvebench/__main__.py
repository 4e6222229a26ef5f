"""``python -m curvebench`` is ``curvebench``."""

from curvebench.cli.main import main

main()
