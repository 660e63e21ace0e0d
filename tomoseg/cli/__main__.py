"""``python -m tomoseg.cli`` is ``tomoseg``."""

from tomoseg.cli import main

if __name__ == "__main__":
    main()
