"""lm-eval's adapter against its own hf adapter, on the same random checkpoints (extras parity and eval)."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow

PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is ", "Paris"),  # a trailing space
    ("Trailing newline\n\n", "and more"),
    ("", "no context at all"),
    ("caf\u00e9 \u4f60\u597d", " \U0001f642"),
    ("a long context, longer than the model " * 12, " is cut on the left"),
    ("word", "s"),
    ("x" * 40, "y"),
]
ROLLING = ["A short text.", "A text of more than one window. " * 14, "caf\u00e9"]


def requests(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


def llama(folder):
    """A tiny random Llama that transformers saved, with a byte-level BPE."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from test_llama import tokenizer_json

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        intermediate_size=64,
        vocab_size=288,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer_json(folder / "tokenizer.json", 270)
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    ids = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    said = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    known = {token["content"]: token["id"] for token in ids}
    saved = json.loads((folder / "config.json").read_text())
    saved |= {"bos_token_id": known[names["bos_token"]], "eos_token_id": known[names["eos_token"]]}
    (folder / "config.json").write_text(json.dumps(saved))
    return folder


def blt(folder):
    """A tiny random Blt that transformers saved, with the tokenizer of our exports."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    import test_parity

    from bltjax.formats import byte_tokenizer

    torch.manual_seed(0)
    transformers.BltForCausalLM(test_parity.random_config(3)).save_pretrained(folder)
    for name, content in byte_tokenizer.files().items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("make", [llama, blt])
@pytest.mark.parametrize("bos", [None, True, False])
def test_equals_the_hf_adapter(make, bos, tmp_path):
    torch = pytest.importorskip("torch")
    from lm_eval.models.huggingface import HFLM

    from bltjax.evaluation import harness

    folder = make(tmp_path / "model")
    given = dict(max_length=100, add_bos_token=bos)
    hf = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1, **given)
    ours = harness.Harness(str(folder), batch_size=4, **given)
    assert ours.prefix_token_id == hf.prefix_token_id and ours.eot_token_id == hf.eot_token_id
    with torch.no_grad():
        wanted = hf.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
        rolled = hf.loglikelihood_rolling(requests("r", [(t,) for t in ROLLING]), disable_tqdm=True)
    found = ours.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    for pair, (want, greedy), (got, same) in zip(PAIRS, wanted, found, strict=True):
        assert same == greedy and abs(got - want) <= 1e-6 * max(len("".join(pair)), abs(want)), pair
    again = ours.loglikelihood_rolling(requests("r", [(t,) for t in ROLLING]), disable_tqdm=True)
    for text, want, got in zip(ROLLING, rolled, again, strict=True):
        assert abs(got - want) <= 1e-6 * max(len(text), abs(want)), text
    # where the hf adapter fails: a context of white space alone, and no BOS before it
    assert np.isfinite(ours.loglikelihood(requests("loglikelihood", [(" ", "a")]), disable_tqdm=True)[0][0])
    assert ours.cut_requests >= 1 and ours.max_length == hf.max_length


def test_a_task_by_the_command_and_generation(tmp_path):
    """A task of our own from a local file, by the command that knows `--model bltjax`."""
    folder = llama(tmp_path / "model")
    rows = [{"q": f"{i} and", "choices": [" one", " two"], "gold": i % 2} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.yaml").write_text(
        f"""task: tiny
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "rows.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{{metric: acc}}]
"""
    )
    command = [sys.executable, "-m", "bltjax.evaluation.lm_eval", "run", "--model", "bltjax"]
    command += ["--model_args", f"path={folder}", "--tasks", "tiny"]
    command += ["--include_path", str(tmp_path / "tasks")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "tiny" in done.stdout and "acc" in done.stdout, done.stderr[-2000:]
    from bltjax.evaluation import harness

    ours = harness.Harness(str(folder))
    asked = [("Once", {"until": ["\n"], "max_gen_toks": 9}), ("b", {"until": "a", "do_sample": False})]
    texts = ours.generate_until(requests("generate_until", asked), disable_tqdm=True)
    assert len(texts) == 2 and all(isinstance(text, str) for text in texts)
    assert "\n" not in texts[0] and "a" not in texts[1]
    assert np.isfinite(ours.loglikelihood(requests("l", [("a", "b")]), disable_tqdm=True)[0][0])
