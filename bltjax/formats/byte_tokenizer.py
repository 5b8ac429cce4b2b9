"""The ids of bytes as a tokenizer of Hugging Face: a byte-level BPE without merges, which transformers loads
as a PreTrainedTokenizerFast. It puts BOS before a text, as the models were trained."""

import json

import tokenizers

from bltjax.patching import vocab
from bltjax.tokenizers import huggingface_json

NAMES = {vocab.BOE: "<boe>", vocab.BOS: "<s>", vocab.EOS: "</s>", vocab.DELIMITER: "<bpe>"}
BOS, EOS, PAD = NAMES[vocab.BOS], NAMES[vocab.EOS], NAMES[vocab.BOE]


def files() -> dict:
    """{name: content} of the files of a tokenizer in a directory."""
    named = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    return {
        "tokenizer.json": json.loads(backend().to_str()),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **named,
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": True,  # "<s>" in a text is three bytes, as here, and no BOS
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 10**30,  # transformers' own way to say that there is no limit
        },
        "special_tokens_map.json": named,
    }


def backend() -> tokenizers.Tokenizer:
    characters = huggingface_json.byte_characters()
    ids = {name: i for i, name in NAMES.items()} | {c: vocab.OFFSET + b for b, c in characters.items()}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=ids, merges=[]))
    # a word ends with every byte: nothing merges, and long texts stay cheap
    single = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([single, level])
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(name, special=True) for name in NAMES.values()])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocab.BOS)]
    )
    return made
