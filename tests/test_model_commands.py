"""Commands on an imported model: text, a page of patches."""

import json

from hf_blt import HF, run


def test_generate_at_the_command_line(capfd, tmp_path):
    code, out, error = run(capfd, "generate", HF, "hello", "--max-new-bytes", 12, "--json")
    found = json.loads(out)
    assert (
        code == 0
        and not error
        and len(bytes.fromhex(found["new_hex"][0])) <= 12
        and found["global_passes_per_byte"] > 0
    )
    (tmp_path / "prompt").write_bytes(b"\xff\xfe no UTF-8")
    code, out, error = run(capfd, "generate", HF, "--file", tmp_path / "prompt", "--max-new-bytes", 12)
    assert code == 0 and "bytes/s" in error and "passes of the global model" in error and "weights" in error
    for arguments, says in (
        ((HF, ""), "the prompt is empty"),
        ((HF,), "the prompt is empty"),
        ((HF, "--file", tmp_path / "none"), "no file"),
        ((HF, "a", "--temperature", "nan"), "temperature"),
        ((HF, "a", "--draft", "4", "--temperature", "1"), "draft"),
    ):
        code, out, error = run(capfd, "generate", *arguments)
        assert code == 2 and says in error and len(error.strip().splitlines()) == 1 and not out
    assert run(capfd, "generate", HF, "--unconditional", "--max-new-bytes", 4)[0] == 0


def test_a_page_of_patches(capfd, tmp_path):
    code, out, error = run(
        capfd,
        "patch",
        "naive <b> caf\u00e9",
        "--run",
        HF,
        "--scheme",
        "entropy",
        "--threshold",
        5,
        "--page",
        tmp_path / "page.html",
        "--color",
        "always",
    )
    page = (tmp_path / "page.html").read_text()
    assert (
        code == 0
        and "\x1b[48;5;" in out
        and "<svg" in page
        and "&lt;" in page
        and "stroke-dasharray" in page
        and "http" not in page
    )
    assert page.count("nats</title>") == len("naive <b> caf\u00e9".encode())
    code, out, error = run(capfd, "patch", "abc", "--run", HF, "--page", tmp_path / "no" / "page.html")
    assert code == 2 and "cannot be written" in error and not out
