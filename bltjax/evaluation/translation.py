"""FLORES (arXiv 2106.03193) from English and into it, four shots of its `dev`: spBLEU, chrF++ and BLEU of
what a model writes, and how likely the reference is."""

import functools
import pathlib

from bltjax.errors import UserError
from bltjax.evaluation import references
from bltjax.evaluation.task import Group, Settings, Task

SHOTS = 4
NEW_IDS = 1024  # of a translation: in scripts of three bytes a letter, sentences are longer than 512
RESAMPLES = 1000
NORMAL = 1.959964  # half of an interval of 95% has so many standard errors

# FLORES-101's name, FLORES-200's, and how a prompt calls it: the 27 languages of BLT's paper
PAPER = {
    "ara": ("arb_Arab", "Arabic"),
    "deu": ("deu_Latn", "German"),
    "hin": ("hin_Deva", "Hindi"),
    "ita": ("ita_Latn", "Italian"),
    "vie": ("vie_Latn", "Vietnamese"),
    "tha": ("tha_Thai", "Thai"),
    "hye": ("hye_Armn", "Armenian"),
    "amh": ("amh_Ethi", "Amharic"),
    "asm": ("asm_Beng", "Assamese"),
    "ben": ("ben_Beng", "Bengali"),
    "bos": ("bos_Latn", "Bosnian"),
    "ceb": ("ceb_Latn", "Cebuano"),
    "kat": ("kat_Geor", "Georgian"),
    "guj": ("guj_Gujr", "Gujarati"),
    "hau": ("hau_Latn", "Hausa"),
    "isl": ("isl_Latn", "Icelandic"),
    "kan": ("kan_Knda", "Kannada"),
    "kaz": ("kaz_Cyrl", "Kazakh"),
    "kea": ("kea_Latn", "Kabuverdianu"),
    "khm": ("khm_Khmr", "Khmer"),
    "kir": ("kir_Cyrl", "Kyrgyz"),
    "mal": ("mal_Mlym", "Malayalam"),
    "ory": ("ory_Orya", "Odia"),
    "som": ("som_Latn", "Somali"),
    "swh": ("swh_Latn", "Swahili"),
    "urd": ("urd_Arab", "Urdu"),
    "zul": ("zul_Latn", "Zulu"),
}
# and others, by themselves: later papers on bytes translate French
LANGUAGES = PAPER | {
    "eng": ("eng_Latn", "English"),
    "fra": ("fra_Latn", "French"),
    "spa": ("spa_Latn", "Spanish"),
    "rus": ("rus_Cyrl", "Russian"),
}


def sentences(data: pathlib.Path, split: str, language: str) -> list[str]:
    """Of SPLIT/eng.SPLIT or SPLIT/eng_Latn.SPLIT in a user's folder, or in a folder flores* of it. UserError
    where there is none, or it has an empty line."""
    names = [f"{split}/{code}.{split}" for code in (language, LANGUAGES[language][0])]
    folders = [data, *sorted(pathlib.Path(data).glob("flores*"))]
    path = next((path for f in folders for n in names if (path := f / n).is_file()), None)
    if path is None:
        raise UserError(f"{data} has no {' or '.join(names)} of FLORES; docs/evaluation.md")
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    found = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if "" in found:
        raise UserError(f"{path}: line {found.index('') + 1} is empty")
    return found


def _pairs(data, split: str, source: str, target: str) -> list[tuple[str, str]]:
    a, b = (sentences(data, split, language) for language in (source, target))
    if len(a) != len(b):
        raise UserError(f"FLORES {split}: {source} has {len(a)} lines and {target} {len(b)}, not as many")
    return list(zip(a, b))


def _items(source: str, target: str, data: pathlib.Path, settings: Settings) -> list[dict]:
    """{"id", "context", "shots", "reference"} of a pair of languages."""
    measures(settings.spm)  # what is missing is said before a model works
    shots = _pairs(data, "dev", source, target)[:SHOTS]
    if len(shots) < SHOTS:
        raise UserError(f"FLORES dev of {source} and {target} has {len(shots)} lines; {SHOTS} are shots")
    layout = f"{LANGUAGES[source][1]}: {{0}}\n{LANGUAGES[target][1]}:"
    pairs = _pairs(data, "devtest", source, target)[: settings.limit or None]
    return [
        {"id": str(i), **references.prompt(layout, shots, (text,)), "reference": reference}
        for i, (text, reference) in enumerate(pairs)
    ]


def measures(spm: pathlib.Path | None) -> dict:
    """{name: sacrebleu's metric}, the one that stands for the task first. spm: FLORES's SentencePiece model,
    without which there is no spBLEU. UserError where a package is missing, or the model is none."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise UserError("FLORES needs the package sacrebleu: pip install 'bltjax[eval]'") from None
    found = {"chrf++": CHRF(word_order=2), "bleu": BLEU(tokenize="13a", force=True)}
    if spm is None:
        return found
    pieces, whole = _pieces(spm), BLEU(tokenize="none", force=True)
    whole.tokenizer = lambda line: " ".join(pieces.encode(line, out_type=str))
    return {"spbleu": whole, **found}


def _pieces(path: pathlib.Path):
    try:
        import sentencepiece
    except ImportError:
        raise UserError("--spm needs a package: pip install 'bltjax[sentencepiece]'") from None
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=pathlib.Path(path).read_bytes())
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "it is no SentencePiece model"
        raise UserError(f"--spm {path}: {why}") from None


def corpus(measure, texts: list[str], wanted: list[str]) -> dict:
    """{"value" of 0 to 100, "stderr"} of a corpus; the error from sentences that are drawn again."""
    several = len(texts) > 1
    found = measure.corpus_score(texts, [wanted], n_bootstrap=RESAMPLES if several else 1)
    return {"value": float(found.score), "stderr": float(found._ci) / NORMAL if several else None}


def _result(model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it. Lines have chrF++ of their sentence."""
    result, lines = references.written(model, asked, NEW_IDS, settings, progress)
    named = measures(settings.spm)
    texts, wanted = [line["text"] for line in lines], [line["reference"] for line in lines]
    scores = {name: corpus(measure, texts, wanted) for name, measure in named.items()}
    for line in lines:
        line["chrf++"] = float(named["chrf++"].sentence_score(line["text"], [line["reference"]]).score)
    return {**result, "metrics": scores | result["metrics"], "main": next(iter(named))}, lines


def _name(source: str, target: str) -> str:
    return f"flores_{source}-{target}"


OTHERS = [language for language in LANGUAGES if language != "eng"]
TASKS = {
    _name(*pair): Task(functools.partial(_items, *pair), _result)
    for language in OTHERS
    for pair in ((language, "eng"), ("eng", language))
}
INTO = tuple(_name(language, "eng") for language in PAPER)
FROM = tuple(_name("eng", language) for language in PAPER)
GROUPS = {"flores": Group(INTO + FROM), "flores_to_eng": Group(INTO), "flores_from_eng": Group(FROM)}
