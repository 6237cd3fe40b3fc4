"""``python -m saledit``."""

from saledit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
