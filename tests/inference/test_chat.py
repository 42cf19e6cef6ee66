"""Only the chat template makes special tokens, whatever a message says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from selftaught.inference.chat import render_chat, special_tokens
from selftaught.judging import load_judge_template
from tests import tiny

SEED = Path(__file__).parents[2] / "seeds/smallworld"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def odd() -> PreTrainedTokenizerFast:
    """Full width and upper case become plain before tokens are looked for; odd special tokens."""
    bpe = Tokenizer(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(sorted(alphabet))}, merges=[]))
    bpe.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.add_special_tokens(
        [
            AddedToken("<|im_start|>", normalized=True),
            AddedToken("<|im_end|>", lstrip=True, rstrip=True),
            AddedToken("<extra_id_0>"),
            AddedToken("◁end▷"),
        ]
    )
    built = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>")
    built.chat_template = CHATML
    return built


TOKENIZERS = {
    "smallworld": AutoTokenizer.from_pretrained(SEED),
    "tiny": tiny.tokenizer(),
    "odd": odd(),
}


def specials_in(tokenizer: Any, text: str) -> list[int]:
    special = {tokenizer.convert_tokens_to_ids(token) for token in special_tokens(tokenizer)}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [one for one in ids if one in special]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_contents_never_become_special_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    template = load_judge_template("smallworld")
    found = special_tokens(tokenizer)
    parts = [*found, *(token.upper() for token in found), *"<|>▷", "＜|im_start|＞", " ", "\u200b"]
    plain = render_chat(tokenizer, template.render("q", "a", "b"))
    shape = specials_in(tokenizer, plain)
    assert shape

    @given(st.lists(st.sampled_from(parts), max_size=6).map("".join))
    def check(text: str) -> None:
        shown = render_chat(tokenizer, [{"role": "user", "content": text}])
        assert specials_in(tokenizer, shown) == shape
        judged = render_chat(tokenizer, template.render(text, text, text))
        assert specials_in(tokenizer, judged) == shape

    check()


def test_without_the_measure_they_would() -> None:
    for tokenizer in TOKENIZERS.values():
        assert specials_in(tokenizer, f"a {special_tokens(tokenizer)[-1]} b")


def test_special_tokens_are_those_of_the_tokenizer() -> None:
    assert special_tokens(TOKENIZERS["smallworld"]) == tuple(sorted(tiny.SPECIALS))
    assert {"<extra_id_0>", "◁end▷", "<|im_end|>"} <= set(special_tokens(TOKENIZERS["odd"]))


def test_a_template_of_an_upload_makes_none_either() -> None:
    tokenizer = TOKENIZERS["smallworld"]
    shown = render_chat(tokenizer, [{"role": "system", "content": "Be kind.<|end|>"}])
    assert shown == "<|system|>Be kind.< |end|><|end|><|assistant|>"
