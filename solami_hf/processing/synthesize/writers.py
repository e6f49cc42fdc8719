"""Models that write: an OpenAI-compatible endpoint, a local model, and the cache that stands before both."""

import hashlib
import itertools
import json
import logging
import os
import random
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...command_line import option
from ..batching import map_in_batches, pad_left
from ..files.text_files import write_json

logger = logging.getLogger(__name__)
LONGEST_WAIT = 120.0  # seconds between two tries
_FATAL = (401, 403, 404, 405)  # nothing that another dialogue would change


class EndpointError(RuntimeError):
    """A request that got no answer, after all tries. The next run asks again."""


class EndpointRefused(OSError):
    """The endpoint refuses everything: wrong key, wrong address, unknown model."""


@dataclass(frozen=True)
class Answer:
    """Text of a model. `finish` is `length` when it was cut off; counts are 0 where the server gives none."""

    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


@dataclass(kw_only=True)
class WriterSettings:
    """A writing model, and how it is asked."""

    base_url: str | None = option(None, "OpenAI-compatible server: http://localhost:8000/v1.")
    provider: str | None = option(None, "Inference provider of the Hub, instead.")
    model: str | None = option(None, "What the server or the provider calls the model.")
    local_model: str | None = option(None, "Folder or Hub id of a chat model to run here.")
    api_key_env: str | None = option(None, "Environment variable with the key; none is sent to base_url without it.")
    temperature: float = option(0.9, "Of the writing model.")
    top_p: float = option(1.0, "Of the writing model.")
    max_tokens: int = option(2048, "Of one answer.")
    extra_body: str | None = option(None, "JSON object of further fields of a request.")
    timeout: float = option(180.0, "Seconds to wait for an answer.")
    retries: int = option(6, "Further tries after overload, server errors and timeouts.")
    first_wait: float = option(1.0, "Seconds before the first of them; doubled each time.")
    concurrency: int = option(8, "Requests under way at the same time.")
    attempts: int = option(3, "How often a script is asked for until it is usable.")

    def __post_init__(self):
        for name, least in {"attempts": 1, "concurrency": 1, "max_tokens": 1, "retries": 0, "first_wait": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")


def content_hash(value) -> str:
    """SHA-256 in hex of anything that JSON can hold; the order of keys does not count."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class CachedWriter:
    """Asks a writer, with `name`, which stands for the model, and `complete(messages, seed, schema)`, only what it has
    not been asked before: one file an answer in `folder`, named by the hash of the request."""

    def __init__(self, writer, folder: str | Path):
        self.writer, self.folder = writer, Path(folder)

    def complete(self, messages: list[dict], seed: int, schema: dict) -> Answer:
        """The kept answer with `cached` set, or a new one, which is kept before it is given."""
        path, request = self._place(messages, seed, schema)
        kept = self._kept(path)
        if kept is None:
            kept = self._keep(path, request, self.writer.complete(messages, seed, schema))
        return kept

    def complete_all(self, requests: list[list[dict]], seeds: list[int]) -> list[Answer]:
        """As `complete`, of many requests in batches of about equal length, each kept as soon as it is there."""
        places = [self._place(messages, seed, {}) for messages, seed in zip(requests, seeds, strict=True)]
        answers = [self._kept(path) for path, _ in places]

        def ask(batch: list[int]) -> list[Answer]:
            new = self.writer.complete_all([requests[i] for i in batch], seeds[batch[0]])
            return [self._keep(*places[i], answer) for i, answer in zip(batch, new, strict=True)]

        missing = [i for i, answer in enumerate(answers) if answer is None]
        new = map_in_batches(
            missing, lambda i: sum(len(m["content"]) for m in requests[i]), self.writer.batch_size, ask
        )
        for i, answer in zip(missing, new, strict=True):
            answers[i] = answer
        return answers

    def _place(self, messages: list[dict], seed: int, schema: dict) -> tuple[Path, dict]:
        request = {"writer": self.writer.name, "messages": messages, "seed": seed, "schema": schema}
        return self.folder / f"{content_hash(request)}.json", request

    def _kept(self, path: Path) -> Answer | None:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))["answer"]
            if not isinstance(kept["text"], str):
                raise TypeError("its text is none")
            return replace(Answer(**kept), cached=True)
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            logger.warning("%s is damaged (%s); the model is asked again", path, error)
        return None

    def _keep(self, path: Path, request: dict, answer: Answer) -> Answer:
        write_json(path, {"request": request, "answer": asdict(answer)}, ensure_ascii=False)
        return answer

    def close(self) -> None:
        """Ends the writer's waiting."""
        self.writer.close()


class EndpointWriter:
    """Any OpenAI-compatible server, or a provider of the Hub, through `huggingface_hub.InferenceClient`. Overload
    (429), server errors (5xx), timeouts and broken connections are tried again, each time after twice the wait, or
    after what `Retry-After` says. A server that refuses the JSON schema (400, 422) is asked without it. Raises
    ValueError: the settings (see `open_writer`) name both an address and a provider, or one does not fit."""

    def __init__(self, settings):
        from huggingface_hub import InferenceClient

        base_url, variable = settings.base_url, settings.api_key_env
        if base_url and settings.provider:
            raise ValueError("base_url and provider exclude each other; a server has no provider")
        if variable and not os.environ.get(variable):
            raise ValueError(f"api_key_env names {variable}, but this variable is not set; export it first")
        try:
            self.extra_body = json.loads(settings.extra_body or "{}")
        except json.JSONDecodeError as error:
            raise ValueError(f"extra_body is no JSON: {error}") from None
        if not isinstance(self.extra_body, dict):
            raise ValueError(f"extra_body must be a JSON object, got {type(self.extra_body).__name__}")
        # The client would send the user's saved Hub token to any address that no key is given for.
        key = os.environ[variable] if variable else ("none" if base_url else None)
        self.client = InferenceClient(
            base_url=base_url, provider=settings.provider, api_key=key, timeout=settings.timeout
        )
        self.settings, self.sampling = settings, _sampling(settings)
        self.name = {"model": settings.model or base_url, **self.sampling, **self.extra_body}
        self._formats = [_AsItIs, dict, None] if base_url else [dict, None]
        self._stopped = threading.Event()

    def complete(self, messages: list[dict], seed: int, schema: dict) -> Answer:
        """One answer. Raises EndpointError: no answer after all tries, or the server refuses this request;
        EndpointRefused: the server refuses every request."""
        for attempt in itertools.count():
            try:
                return self._ask(messages, seed, schema)
            except _Again as again:
                if attempt == self.settings.retries:
                    raise EndpointError(f"no answer after {attempt + 1} tries: {again}") from None
                wait = again.wait
                if wait is None:
                    wait = self.settings.first_wait * 2**attempt * random.uniform(1, 1.25)
                wait = min(LONGEST_WAIT, wait)
                logger.debug("%s; next try in %.1f s", again, wait)
                if self._stopped.wait(wait):
                    raise EndpointError("stopped") from None

    def close(self) -> None:
        """Lets threads that wait for their next try give up."""
        self._stopped.set()

    def _ask(self, messages, seed, schema) -> Answer:
        from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the latter is the HTTP library's

        formats = self._formats  # another thread may shorten it meanwhile
        wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        for index, form in enumerate(formats):
            try:
                output = self.client.chat_completion(
                    messages,
                    model=self.settings.model,
                    response_format=form and form(wanted),
                    seed=seed,
                    extra_body=self.extra_body,
                    **self.sampling,
                )
                answer = _answer(output)
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status in (400, 422) and index + 1 < len(formats):
                    continue
                raise _named(error, status) from None
            except HTTPError as error:  # timeouts, broken connections
                raise _Again(f"{type(error).__name__}: {error}") from None
            except ValueError as error:
                if not isinstance(error, json.JSONDecodeError):  # the client itself refuses: no key, unknown provider
                    raise EndpointRefused(str(error)) from None
                raise _Again(f"the server's answer is no JSON ({error})") from None
            except (TypeError, KeyError, AttributeError, IndexError) as error:
                raise _Again(f"the server's answer is no chat completion ({type(error).__name__}: {error})") from None
            if index:  # the form is what was refused, not this request
                way = "without one" if form is None else "in another form"
                logger.info("the server refuses a JSON schema; asking %s from now on", way)
                self._formats = formats[index:]
            return answer


class _Again(Exception):
    """A failure that may pass; `wait` is what the server asks to wait, in seconds."""

    def __init__(self, message: str, wait: float | None = None):
        super().__init__(message)
        self.wait = wait


class _AsItIs(dict):
    """A response format that `InferenceClient` sends as OpenAI, vLLM and llama.cpp know it. For a plain address the
    client turns `json_schema` into the form of text-generation-inference, by a look at `type`."""

    def get(self, key, default=None):
        return default if key == "type" else super().get(key, default)


def _answer(output) -> Answer:
    choice, usage = output.choices[0], getattr(output, "usage", None)
    text = choice.message.content
    tokens = [getattr(usage, f"{kind}_tokens", 0) or 0 for kind in ("prompt", "completion")]
    return Answer(text if isinstance(text, str) else "", choice.finish_reason or "stop", *tokens)


def _named(error, status: int) -> Exception:
    """The exception that tells what a failed request means."""
    detail = " ".join(str(error).split())[:500]
    if status in (408, 409, 425, 429) or status >= 500:
        try:
            wait = float(error.response.headers.get("Retry-After"))
        except (TypeError, ValueError):  # absent, or a date
            wait = None
        return _Again(detail, wait if wait is not None and 0 <= wait < 1e6 else None)
    return EndpointRefused(detail) if status in _FATAL else EndpointError(detail)


class LocalWriter:
    """A chat model of transformers in this process; ValueError where it has no chat template."""

    batch_size = 64

    def __init__(self, settings):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from ...modeling.solami.backbones import cpu_has_fast_bf16

        self.tokenizer = AutoTokenizer.from_pretrained(settings.local_model)
        if not self.tokenizer.chat_template:
            raise ValueError(f"{settings.local_model} has no chat template; use an instruction-tuned model")
        has_gpu = torch.cuda.is_available()
        dtype = "auto" if has_gpu or cpu_has_fast_bf16() else torch.float32
        self.model = AutoModelForCausalLM.from_pretrained(settings.local_model, dtype=dtype).eval()
        self.model.to("cuda" if has_gpu else "cpu")
        self.sampling = _sampling(settings)
        self.name = {"model": settings.local_model, **self.sampling}
        self._lock = threading.Lock()

    def complete(self, messages: list[dict], seed: int, schema: dict) -> Answer:
        """One answer; the schema is only told by the prompt, as nothing constrains a local model."""
        return self.complete_all([messages], seed)[0]

    def complete_all(self, requests: list[list[dict]], seed: int) -> list[Answer]:
        """Answers to many requests, generated in one batch."""
        import torch
        from transformers import set_seed

        sampled = {"do_sample": self.sampling["temperature"] > 0}
        if sampled["do_sample"]:
            sampled |= {name: self.sampling[name] for name in ("temperature", "top_p")}
        longest, pad = self.sampling["max_tokens"], self.tokenizer.pad_token_id or 0
        encoded = self.tokenizer.apply_chat_template(requests, add_generation_prompt=True, return_dict=True)
        rows = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        inputs = {name: torch.tensor(row, device=self.model.device) for name, row in pad_left(rows, pad).items()}
        with self._lock:  # the random state belongs to the whole process
            set_seed(seed)
            # Training leaves a `use_cache: false` in many a config
            output = self.model.generate(**inputs, max_new_tokens=longest, use_cache=True, pad_token_id=pad, **sampled)
        ends, answers = self.model.generation_config.eos_token_id, []
        ends = set(ends if isinstance(ends, list) else [ends])
        asked = inputs["attention_mask"].sum(1).tolist()
        for prompt, row in zip(asked, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((i + 1 for i, token in enumerate(row) if token in ends), None)
            finish = "length" if end is None and len(row) == longest else "stop"
            text = self.tokenizer.decode(row[:end], skip_special_tokens=True)
            answers.append(Answer(text, finish, prompt, len(row[:end])))
        return answers

    def close(self) -> None:
        """Nothing to end."""


def _sampling(settings) -> dict:
    return {name: getattr(settings, name) for name in ("temperature", "top_p", "max_tokens")}


def open_writer(settings: WriterSettings):
    """The writer that settings name. Raises ValueError: nobody is named, too many are, or `extra_body` is no JSON
    object."""
    if settings.local_model:
        if settings.base_url or settings.provider or settings.model:
            raise ValueError("local_model excludes base_url, provider and model; choose who writes")
        return LocalWriter(settings)
    if not (settings.base_url or settings.model):
        raise ValueError("say who writes: --base_url (a server), --model (Hub providers) or --local_model")
    return EndpointWriter(settings)
