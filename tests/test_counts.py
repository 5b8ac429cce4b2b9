"""One of a thing is told as one."""

import re

import pytest
from fabricated_runs import add_run

from bltjax.cli.main import main
from bltjax.counts import counted


@pytest.mark.parametrize(
    "number, noun, said",
    [
        (1, "run", "1 run"),
        (0, "run", "0 runs"),
        (1024, "entry", "1,024 entries"),
        (2, "patch", "2 patches"),
        (2, "process", "2 processes"),
        (2, "tray", "2 trays"),
        (3, "other run", "3 other runs"),
    ],
)
def test_counts_with_their_nouns(number, noun, said):
    assert counted(number, noun) == said


def test_what_commands_say_of_one(tmp_path, capsys):
    """Of prepared data in one shard, and of an experiment whose only run has not ended."""
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text(f"text number {i} " * (i + 3))
    prepared = str(tmp_path / "prepared")
    assert main(["data", "prepare", "files", str(tmp_path / "*.txt"), "--out", prepared]) == 0
    assert main(["data", "inspect", prepared]) == 0
    add_run(tmp_path / "quickstart_lr", "bpe", 1e11, finished=False)
    assert main(["report", "quickstart_lr", "--root", str(tmp_path)]) == 2
    said = "".join(capsys.readouterr())
    assert "1 part of files" in said and " in 1 shard\n" in said
    assert "1 run, of which none has finished" in said
    assert not re.search(r"\b1 (\w+ )?(documents|shards|parts|runs|rows|units)\b|\w\(s\)", said)
