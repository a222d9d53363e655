"""`python -m idp` is `idp`."""

from idp.cli.main import run

if __name__ == "__main__":
    run()
