"""The golden directory in Hugging Face's Blt format, and commands on it."""

import pathlib

from bltjax.cli import main

HF = pathlib.Path(__file__).parent / "golden" / "hf_blt"


def run(capfd, *arguments):
    code = main.main([str(a) for a in arguments])
    out, error = capfd.readouterr()
    return code, out, error
