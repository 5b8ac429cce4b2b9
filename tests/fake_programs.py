"""Programs that stand in for a scheduler's own on the PATH."""

import os
import stat


class Fakes:
    """Programs on the PATH that note how they were called, and answer what a test says."""

    def __init__(self, folder, monkeypatch):
        folder.mkdir()
        self.folder, self.calls = folder, folder / "calls"
        self.calls.touch()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def program(self, name, body):
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{self.calls}\n{body}\n', encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answer(self, name, text, status=0):
        (self.folder / f"{name}.answer").write_text(text, encoding="utf-8")
        self.program(name, f"cat {self.folder}/{name}.answer; exit {status}")

    def called(self, text=""):
        return [line for line in self.calls.read_text().splitlines() if text in line]
