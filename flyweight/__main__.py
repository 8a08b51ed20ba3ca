"""`python -m flyweight` is the command `flyweight`."""

from flyweight.cli.main import main

if __name__ == "__main__":
    main()
