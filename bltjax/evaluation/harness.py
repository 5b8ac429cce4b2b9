"""lm-eval's adapter for any model that `bltjax.load` takes: importing this registers it as `bltjax`.

Context and continuation are cut as lm-eval's hf adapter cuts them (evaluation/encoding.py); what a number is
comes from evaluation/likelihood.py and the generator, as everywhere here."""

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from bltjax import api
from bltjax.errors import UserError
from bltjax.evaluation import answers, encoding, likelihood
from bltjax.parallel import host

GENERATED = 256  # ids, where a task does not say
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@register_model("bltjax")
class Harness(TemplateLM):
    """path (or pretrained): what `bltjax.load` takes. entropy_model: another model for entropies.

    batch_size: rows of a call; "auto" or 0: by their length. max_length: ids of a row at most (default: as
    the model trained, or its config says). add_bos_token: whether BOS stands before a context; default: as
    the tokenizer of a Hugging Face directory has it, else yes. max_gen_toks: ids to generate where a task
    does not say, at most half of max_length."""

    def __init__(
        self,
        path: str = "",
        pretrained: str = "",
        entropy_model: str | None = None,
        batch_size: int | str = 0,
        max_length: int = 0,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        max_gen_toks: int = GENERATED,
        device: str | None = None,
        max_batch_size: int | None = None,
        model=None,
    ):
        super().__init__()
        if not (path or pretrained or model):
            raise UserError("lm-eval's model bltjax needs --model_args path=DIR")
        host.keep_compiled_programs()
        self.model = model or api.load(path or pretrained, entropy_model=entropy_model)
        self.path = str(path or pretrained or self.model.folder)
        self.encoding = encoding.Encoding(self.model)
        self._batch = 0 if str(batch_size).startswith("auto") else int(batch_size or 0)
        self.max_length = int(max_length) or encoding.longest(self.model)
        self.max_gen_toks = min(int(max_gen_toks), self.max_length // 2)
        told = encoding.adds_bos(self.model) if add_bos_token is None else add_bos_token
        # texts whose every id is scored begin at one BOS, but where a tokenizer says itself that it adds one
        self._bos, self._bos_rolling = told is not False, bool(told)
        self._prefix = self.encoding.bos if prefix_token_id is None else int(prefix_token_id)
        self.cut_requests = 0  # that lost ids on the left

    @property
    def batch_size(self) -> int:
        return self._batch

    @property
    def eot_token_id(self) -> int:
        return self.encoding.eos

    @property
    def prefix_token_id(self) -> int:
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        return self.path

    def get_model_info(self) -> dict:
        """What lm-eval keeps beside results."""
        return {"model": self.path, "requests_cut_on_the_left": self.cut_requests}

    def apply_chat_template(self, chat_history, add_generation_prompt: bool = True):
        raise UserError("base models have no chat template: leave --apply_chat_template out")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        return self.encoding.encode(string, self._bos if add_special_tokens is None else add_special_tokens)

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, **kwargs):
        with tqdm(total=len(requests), desc="log-likelihoods", disable=disable_tqdm) as bar:
            found = likelihood.loglikelihoods(
                self.model,
                # a context of white space alone is nothing, once that is scored with what follows
                [(context or [self.prefix_token_id], continuation) for _, context, continuation in requests],
                self.max_length,
                self._batch,
                progress=bar.update,
            )
        self.cut_requests += sum(one.cut > 0 for one in found)
        for (texts, _, _), one in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, (one.value, one.greedy))
        return [(one.value, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        windows, owner = [], []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0], self._bos_rolling)
            rolling = utils.get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            for window in map(utils.make_disjoint_window, rolling):
                windows.append((None, *window))
                owner.append(number)
        totals = [0.0] * len(requests)
        for number, (value, _) in zip(owner, self._loglikelihood_tokens(windows, disable_tqdm)):
            totals[number] += value
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        groups = {}
        for number, request in enumerate(requests):
            groups.setdefault(_options(request.args[1], self.max_gen_toks), []).append(number)
        found = [""] * len(requests)
        with tqdm(total=len(requests), desc="generation", disable=disable_tqdm) as bar:
            for (until, most, sampling), numbers in groups.items():
                prompts = [requests[i].args[0] for i in numbers]
                texts = answers.generate(
                    self.model,
                    prompts,
                    most,
                    until,
                    batch_size=self._batch,
                    max_length=self.max_length,
                    progress=bar.update,
                    **dict(sampling),
                )
                for i, text in zip(numbers, texts, strict=True):
                    found[i] = text
                    self.cache_hook.add_partial("generate_until", requests[i].args, text)
        return found


def _options(kwargs: dict, default: int) -> tuple:
    """(stop texts, new ids at most, pairs of sampling options) of a request. UserError for what is not known
    here."""
    kwargs = dict(kwargs)
    until = kwargs.pop("until", None) or []
    until = (until,) if isinstance(until, str) else tuple(until)
    limits = [kwargs.pop(name) for name in LIMITS if name in kwargs]
    most = next((int(limit) for limit in limits if limit is not None), default)
    temperature = float(kwargs.pop("temperature", None) or 0.0)
    if not kwargs.pop("do_sample", temperature > 0):
        temperature = 0.0
    sampling = {"temperature": temperature}
    for name in ("top_k", "top_p", "seed"):
        if kwargs.get(name) is not None and temperature:
            sampling[name] = kwargs[name]
        kwargs.pop(name, None)
    if kwargs:
        raise UserError(f"generation: {', '.join(sorted(kwargs))} is not known here")
    return tuple(text for text in until if text), most, tuple(sampling.items())
