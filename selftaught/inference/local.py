"""A model in this process: transformers weights, our own sampling loop.

Faster than `generate` where many short samples are drawn: prompts of like length share a batch, a
prompt is computed once for all its samples (decoders.py), finished rows leave the batch, and the
random numbers belong to the rows (sampling.py), so that batching changes nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from selftaught import stopping, telemetry
from selftaught.inference.chat import render_chat
from selftaught.inference.decoders import (
    ATTENTION,
    CachedDecoder,
    Decoder,
    SharedPrefixDecoder,
    supports_shared_prefix,
)
from selftaught.inference.detokenising import Growing
from selftaught.inference.folders import check_folder
from selftaught.inference.pieces import Pieces
from selftaught.inference.protocol import (
    Completion,
    Dialogue,
    EngineRefused,
    ModelLoadError,
    Request,
    Sampling,
    in_rounds,
)
from selftaught.inference.sampling import pick, uniforms
from selftaught.inference.tails import Tails
from selftaught.judging import mark_logprobs

_COMPACT_BELOW = 0.85
"""Finished rows leave the batch when less than this share of it is still running."""


_SPARE = 6 * 2**30
"""Bytes of one GPU that weights leave to caches and activations, if it holds the whole model."""

_LOADING = threading.Lock()
"""from_pretrained changes what belongs to the process: two at once leave weights without data, or
random ones in the place of tied ones (github.com/huggingface/transformers, issue 41782)."""

_PADDING = 64
"""Positions that a prompt may be padded by, to share a batch; or a quarter of its own length."""


class LocalEngine:
    """A causal language model from a folder (weights, or a PEFT adapter that names its base).

    `max_rows`: samples decoded together. `cache_bytes`: worst-case size of their keys and values;
    long prompts make smaller batches. `shared_prefix` false forgoes the faster decoder where the
    architecture allows it. On CUDA the weights keep their own dtype, on a CPU they are
    float32; `quantize` as in :func:`load_model`. A model that is too large for one GPU is spread
    over all that this process sees. Only safetensors are read and no code from the folder is run.
    Calls from several threads take turns.
    """

    def __init__(
        self,
        path: Path,
        max_rows: int = 256,
        cache_bytes: int = 4 * 2**30,
        shared_prefix: bool = True,
        quantize: Literal["none", "nf4"] = "none",
    ) -> None:
        self._lock = threading.Lock()
        self._about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": path.name}
        self._max_rows = max_rows
        self.model, self.tokenizer = load_model(path, quantize, "many")
        self.model.eval()
        self._shared = shared_prefix and supports_shared_prefix(self.model)
        if self._shared:
            self.model.set_attn_implementation(ATTENTION)
        self._ends = _end_tokens(self.model, self.tokenizer)
        self._pieces = Pieces(self.tokenizer)
        self._context = int(getattr(self.model.config, "max_position_embeddings", 2**31))
        self._max_tokens = cache_bytes // _cache_bytes_per_token(self.model)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """See Engine. A prompt that leaves no room in the model's context is "rejected". Work that
        is called off (see stopping) ends behind a token: Stopped."""
        prompts = self._tokenise(requests)
        results: list[list[Completion]] = [
            [Completion("", "rejected", len(prompt), 0)] * request.n
            for prompt, request in zip(prompts, requests, strict=True)
        ]
        with (
            telemetry.span("chat local", attributes=self._about) as span,
            self._lock,
            torch.inference_mode(),
        ):
            for batch in self._batches(prompts, requests, sampling.max_tokens):
                stopping.check()
                texts = self._run(
                    [prompts[i] for i in batch], [requests[i] for i in batch], sampling
                )
                for index, completions in zip(batch, texts, strict=True):
                    results[index] = completions
            written = sum(one.completion_tokens for n in results for one in n)
            span.set_attribute("gen_ai.usage.input_tokens", sum(map(len, prompts)))
            span.set_attribute("gen_ai.usage.output_tokens", written)
        return results

    def converse(self, dialogues: Iterable[Dialogue]) -> None:
        """See Engine: in rounds, since rows of one batch end together."""
        in_rounds(self.generate, dialogues)

    def close(self) -> None:
        """Drop the weights."""
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _tokenise(self, requests: Sequence[Request]) -> list[list[int]]:
        if not requests:
            return []
        try:
            texts = [render_chat(self.tokenizer, request.messages) for request in requests]
        except TemplateError as error:  # some models' templates refuse a system message
            raise EngineRefused(422, f"the model's chat template: {error}") from error
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]

    def _batches(
        self, prompts: list[list[int]], requests: Sequence[Request], max_tokens: int
    ) -> Iterator[list[int]]:
        """Indices of requests of like length, longest first: the worst case comes at once."""
        batch: list[int] = []
        rows = 0
        for index in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
            if len(prompts[index]) >= self._context or not requests[index].n:
                continue
            n = requests[index].n
            longest = len(prompts[batch[0]]) if batch else len(prompts[index])
            fits = (rows + n) * (longest + max_tokens) <= self._max_tokens
            padding = longest - len(prompts[index])
            fits &= padding <= max(_PADDING, len(prompts[index]) // 4)
            if batch and (rows + n > self._max_rows or not fits):
                yield batch
                batch, rows = [], 0
            batch.append(index)
            rows += n
        if batch:
            yield batch

    def _run(
        self, prompts: list[list[int]], requests: list[Request], sampling: Sampling
    ) -> list[list[Completion]]:
        """Sample one batch to its end."""
        decoder: Decoder = (
            SharedPrefixDecoder(self.model) if self._shared else CachedDecoder(self.model)
        )
        copies = [request.n for request in requests]
        owner = np.repeat(np.arange(len(requests)), copies)
        seeds = np.array([request.seed for request in requests], dtype=np.uint64)[owner]
        samples = np.concatenate(
            [np.arange(r.first, r.first + r.n, dtype=np.uint64) for r in requests]
        )
        room = np.array([self._context - len(prompt) for prompt in prompts])[owner]
        limit = np.minimum(room, sampling.max_tokens)
        written: list[list[int]] = [[] for _ in owner]
        logits = decoder.prefill(prompts, copies)[torch.from_numpy(owner).to(self.model.device)]
        first = np.cumsum([0, *copies])  # each request's first sample
        heard = {
            int(first[i]): Growing(self.tokenizer, request.hear)
            for i, request in enumerate(requests)
            if request.hear is not None
        }
        rows = np.arange(len(owner))  # which sample each row of the batch is
        running = np.ones(len(owner), dtype=bool)  # by row: not finished yet
        ended = np.zeros(len(owner), dtype=bool)  # by sample: wrote an end token
        tails = Tails(len(owner), logits.shape[-1]) if any(r.marks for r in requests) else None
        step = 0
        while True:
            uniform = torch.from_numpy(uniforms(seeds[rows], samples[rows], step))
            tokens = pick(logits, sampling, uniform.to(logits.device, torch.float32))
            chosen = tokens.cpu().numpy()
            if tails is not None:
                tails.write(step, rows, running, logits, tokens)
            step += 1
            for row in np.flatnonzero(running):
                sample = int(rows[row])
                written[sample].append(int(chosen[row]))
                if sample in heard:
                    heard[sample].grow(written[sample])
            stops = np.isin(chosen, self._ends)
            ended[rows[running & stops]] = True
            running &= ~stops & (limit[rows] > step)
            if not running.any():
                break
            stopping.check()
            if running.sum() < _COMPACT_BELOW * len(rows):
                kept = np.flatnonzero(running)
                decoder.keep(torch.from_numpy(kept))
                tokens = tokens[torch.from_numpy(kept).to(tokens.device)]
                rows, running = rows[kept], running[kept]
            logits = decoder.step(tokens)
        likely: list[tuple[float, ...] | None] = [None] * len(owner)
        if tails is not None:
            for sample, index in enumerate(owner):
                tail = tails.read(sample, written[sample], self._pieces)
                marks = requests[index].marks
                likely[sample] = mark_logprobs(tail, marks) if marks else None
        return self._completions(prompts, owner, written, ended, likely)

    def _completions(
        self,
        prompts: list[list[int]],
        owner: Any,
        written: list[list[int]],
        ended: Any,
        likely: list[tuple[float, ...] | None],
    ) -> list[list[Completion]]:
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        grouped: list[list[Completion]] = [[] for _ in prompts]
        samples = zip(owner, texts, written, ended, likely, strict=True)
        for index, text, tokens, stop, mark_logs in samples:
            reason: Literal["stop", "length"] = "stop" if stop else "length"
            grouped[index].append(
                Completion(text, reason, len(prompts[index]), len(tokens), mark_logs)
            )
        return grouped


def load_model(
    path: Path,
    quantize: Literal["none", "nf4"] = "none",
    place: Literal["one", "many", "cpu"] = "one",
) -> tuple[PreTrainedModel, Any]:
    """Model (with its adapter merged in, if it is one) and tokenizer. Raises ModelLoadError.

    `quantize` "nf4": matrices of the layers in 4 bits (bitsandbytes; QLoRA, arXiv 2305.14314); an
    adapter then stays beside them. `place`: on one GPU, on as many as it needs, or in the CPU's
    memory, where weights that keep their dtype are read from the file when they are used; without a
    GPU all of these are the CPU. Quantized weights are always on a GPU if there is one.
    """
    if not path.is_dir():
        raise ModelLoadError(f"{path.name}: no such model folder")
    try:
        adapter = path / "adapter_config.json"
        base = path
        if adapter.exists():
            base = Path(json.loads(adapter.read_text())["base_model_name_or_path"])
            if not base.is_dir():
                raise ModelLoadError(f"{path.name}: its base model {base.name} is not here")
        check_folder(base)
        cuda = torch.cuda.is_available()
        model: Any
        with _LOADING:
            model, found = AutoModelForCausalLM.from_pretrained(
                base,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype="auto" if cuda else torch.float32,
                output_loading_info=True,
                **_placed(base, quantize, spread=place == "many"),
            )
        if absent := sorted(found["missing_keys"]):  # they would be random
            raise ModelLoadError(f"{path.name}: weights are missing, {absent[0]} first")
        for module in model.modules():
            # bitsandbytes would pack weights anew in evaluation, in place: FSDP's would be lost.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        if adapter.exists():
            from peft import PeftModel

            adapted = PeftModel.from_pretrained(model, str(path))
            # The base with the adapter's layers in it, which is the same model for all who use it.
            model = adapted.merge_and_unload() if quantize == "none" else adapted.base_model.model
        tokenizer = AutoTokenizer.from_pretrained(
            path if (path / "tokenizer_config.json").exists() else base,
            local_files_only=True,
            trust_remote_code=False,
        )
        if getattr(model, "hf_device_map", None) is None:
            model = model.to("cuda" if cuda and place != "cpu" else "cpu")
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelLoadError(f"{path.name}: {type(error).__name__}: {error}") from error
    if not tokenizer.chat_template:
        raise ModelLoadError(f"{path.name}: the tokenizer has no chat template")
    return model, tokenizer


def _placed(base: Path, quantize: str, spread: bool) -> dict[str, Any]:
    """What `from_pretrained` needs to know to quantize a model or to spread it over GPUs."""
    cuda = torch.cuda.is_available()
    several = spread and cuda and torch.cuda.device_count() > 1
    if quantize == "nf4":
        from transformers import BitsAndBytesConfig

        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if cuda else torch.float32,
            bnb_4bit_quant_storage=torch.bfloat16,  # as FSDP shards floats only
        )
        one: dict[str, Any] = {"": 0 if cuda else "cpu"}
        too_large = several and _bytes(base) / 3 + _SPARE > torch.cuda.mem_get_info(0)[0]
        return {"quantization_config": config, "device_map": "auto" if too_large else one}
    if several and _bytes(base) + _SPARE > torch.cuda.mem_get_info(0)[0]:
        return {"device_map": "auto"}
    return {}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _end_tokens(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    configured: Any = model.generation_config.eos_token_id if model.generation_config else None
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None})


def _cache_bytes_per_token(model: PreTrainedModel) -> int:
    config: Any = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)
