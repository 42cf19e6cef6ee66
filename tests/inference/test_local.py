"""The local engine on a tiny real model: equal to transformers, independent of batching."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selftaught.inference import (
    ModelLoadError,
    Request,
    Sampling,
    close_engines,
    decoders,
    factory,
    open_engine,
)
from selftaught.inference.decoders import supports_shared_prefix
from selftaught.inference.local import LocalEngine, load_model
from tests import tiny

GREEDY = Sampling(temperature=0, max_tokens=40)
WARM = Sampling(temperature=1.0, top_p=0.95, max_tokens=40)
LENGTHS = (3, 40, 11, 1, 25, 12, 12)


def ask(text: str, seed: int, n: int = 1) -> Request:
    return Request([{"role": "user", "content": text}], seed, n)


REQUESTS = [ask("ab c" * length, seed, 1 + seed % 4) for seed, length in enumerate(LENGTHS)]


def reference(path: Path, request: Request, max_tokens: int) -> tuple[str, int]:
    """What transformers' own generate writes greedily, and how many tokens."""
    model, words = load_model(path)
    text = words.apply_chat_template(
        list(request.messages), tokenize=False, add_generation_prompt=True
    )
    ids = words(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        out = model.generate(input_ids=ids, max_new_tokens=max_tokens, do_sample=False)
    new = out[0, ids.shape[1] :]
    return words.decode(new, skip_special_tokens=True), len(new)


@pytest.mark.parametrize(("kv_heads", "seed"), [(4, 4), (2, 0), (1, 1)])
def test_greedy_equals_transformers_token_by_token(
    tmp_path: Path, kv_heads: int, seed: int
) -> None:
    path = tiny.build(tmp_path / "m", kv_heads=kv_heads, seed=seed)
    answers = LocalEngine(path).generate(REQUESTS, GREEDY)
    ends = set()
    for request, several in zip(REQUESTS, answers, strict=True):
        text, tokens = reference(path, request, 40)
        assert [c.text for c in several] == [text] * request.n
        assert {c.completion_tokens for c in several} == {tokens}
        ends |= {c.finish_reason for c in several}
    assert ends == {"stop", "length"}  # both ways to end occurred, so rows left the batch early


def test_more_tokens_than_one_block_of_the_cache(tiny_model: Path, engine: LocalEngine) -> None:
    long = Sampling(temperature=0, max_tokens=150)
    found = [several[0].text for several in engine.generate(REQUESTS, long)]
    assert found == [reference(tiny_model, request, 150)[0] for request in REQUESTS]


def test_samples_do_not_depend_on_the_batch(tiny_model: Path, engine: LocalEngine) -> None:
    together = engine.generate(REQUESTS, WARM)
    assert engine.generate(REQUESTS, WARM) == together
    assert engine.generate(REQUESTS[::-1], WARM) == together[::-1]
    assert [engine.generate([request], WARM)[0] for request in REQUESTS] == together
    assert LocalEngine(tiny_model, max_rows=3).generate(REQUESTS, WARM) == together


def test_sample_i_is_the_same_however_many_there_are(engine: LocalEngine) -> None:
    few, many = (
        engine.generate([ask("hello", 9, 2)], WARM),
        engine.generate([ask("hello", 9, 6)], WARM),
    )
    assert many[0][:2] == few[0]
    later = Request(ask("hello", 9).messages, 9, 3, first=2)
    assert engine.generate([later], WARM)[0] == many[0][2:5], "asked for later, the same"
    assert len({c.text for c in many[0]}) > 1
    assert engine.generate([ask("hello", 10, 2)], WARM) != few


def test_both_decoders_agree(tiny_model: Path, engine: LocalEngine) -> None:
    plain = LocalEngine(tiny_model, shared_prefix=False)
    assert supports_shared_prefix(plain.model)
    assert plain.generate(REQUESTS, WARM) == engine.generate(REQUESTS, WARM)
    assert plain.generate(REQUESTS, GREEDY) == engine.generate(REQUESTS, GREEDY)


def test_long_prompts_are_computed_a_few_at_a_time(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(tiny_model)
    alike = [ask("ab c" * (20 + number), number, 1 + number % 3) for number in range(8)]
    shapes: list[torch.Size] = []
    engine.model.get_decoder().register_forward_pre_hook(
        lambda _module, _args, given: shapes.append(given["input_ids"].shape), with_kwargs=True
    )

    def prefills(most: int) -> list[torch.Size]:
        monkeypatch.setattr(decoders, "_POSITIONS", most)
        shapes.clear()
        assert engine.generate(alike, WARM) == whole
        return [shape for shape in shapes if shape[1] > 1]

    whole = engine.generate(alike, WARM)
    (together,) = prefills(decoders._POSITIONS)
    assert together[0] == len(alike)
    few = prefills(3 * together[1])
    assert max(shape.numel() for shape in few) <= 3 * together[1]
    assert sum(shape[0] for shape in few) == len(alike) and len(few) == 3
    assert [shape[0] for shape in prefills(1)] == [1] * len(alike), "less than any prompt"


def test_the_context_ends_a_completion_and_rejects_a_prompt(tmp_path: Path) -> None:
    engine = LocalEngine(tiny.build(tmp_path / "m", context=32))
    fits, nearly, too_long = (ask("x" * n, 0) for n in (4, 27, 40))
    answers = [several[0] for several in engine.generate([fits, nearly, too_long], GREEDY)]
    assert answers[1].completion_tokens <= 2
    assert answers[1].finish_reason == "length"
    assert (answers[2].finish_reason, answers[2].text) == ("rejected", "")
    assert answers[2].prompt_tokens == 43
    assert engine.generate([], GREEDY) == []
    assert engine.generate([ask("x", 0, n=0)], GREEDY) == [[]]


def test_an_adapter_is_loaded_on_its_base(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny.build(tmp_path / "base")
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    adapted = LocalEngine(tmp_path / "adapter").generate(REQUESTS, GREEDY)
    assert adapted != LocalEngine(base).generate(REQUESTS, GREEDY)
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    tiny.tokenizer().save_pretrained(tmp_path / "merged")
    assert LocalEngine(tmp_path / "merged").generate(REQUESTS, GREEDY) == adapted

    shutil.rmtree(base)
    with pytest.raises(ModelLoadError, match="base model base is not here"):
        LocalEngine(tmp_path / "adapter")


def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no such model folder"):
        LocalEngine(tmp_path / "nowhere")
    path = tiny.build(tmp_path / "m")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelLoadError, match="m: "):
        LocalEngine(path)
    weights.unlink()
    torch.save({}, path / "pytorch_model.bin")  # pickles are never read
    with pytest.raises(ModelLoadError, match=r"safetensors|OSError"):
        LocalEngine(path)


def test_models_are_loaded_by_many_threads_at_once(tmp_path: Path) -> None:
    path = tiny.build(tmp_path / "m")
    with ThreadPoolExecutor(4) as threads:
        engines = list(threads.map(lambda _: LocalEngine(path), range(12)))
    answers = [engine.generate(REQUESTS, GREEDY) for engine in engines]
    assert all(answer == answers[0] for answer in answers)


def test_weights_that_are_not_there_are_not_made_up(tmp_path: Path) -> None:
    path = tiny.build(tmp_path / "m")
    weights = load_file(path / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"missing, model\.layers\.0\.mlp\.up_proj"):
        LocalEngine(path)


def test_code_from_a_model_folder_is_never_run(tmp_path: Path) -> None:
    path = tiny.build(tmp_path / "m")
    marker = tmp_path / "ran"
    (path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    config = json.loads((path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    }
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError):
        LocalEngine(path)
    assert not marker.exists()


def test_a_tokenizer_without_chat_template_is_refused(tmp_path: Path) -> None:
    path = tiny.build(tmp_path / "m")
    (path / "chat_template.jinja").unlink()
    with pytest.raises(ModelLoadError, match="chat template"):
        LocalEngine(path)


def test_engines_are_kept_and_make_room(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "KEPT", 2)
    close_engines()
    paths = [shutil.copytree(tiny_model, tmp_path / str(i)) for i in range(3)]
    first, second = open_engine("local", paths[0]), open_engine("local", paths[1])
    assert open_engine("local", paths[0]) is first
    open_engine("local", paths[2])  # the second was used longest ago
    assert open_engine("local", paths[0]) is first
    assert open_engine("local", paths[1]) is not second
    close_engines()
    assert open_engine("local", paths[0]) is not first
    close_engines()
    with pytest.raises(ModelLoadError, match="no inference endpoint named 'vllm'"):
        open_engine("vllm", "m", {})
