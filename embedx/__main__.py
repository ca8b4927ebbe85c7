"""`python -m embedx` is the command `embedx`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working folder: what lies among data is not to be imported
    from embedx.cli import main

    main(prog_name="embedx")
