"""`python -m anyrec`: the command line."""

from anyrec.cli.app import main

if __name__ == "__main__":
    main()
