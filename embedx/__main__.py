"""`python -m embedx` is the command `embedx`."""

from embedx.cli import main

if __name__ == "__main__":
    main(prog_name="embedx")
