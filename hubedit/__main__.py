"""`python -m hubedit` is the `hubedit` command."""

from hubedit.cli.app import main

if __name__ == "__main__":
    main()
