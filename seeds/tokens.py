"""The seed's tokenizer: a byte-level BPE learned from the world's own text.

A letter with the blank before it is one token, so is a word and so is a verdict; any other text
falls back to bytes, so that nothing is unreadable and every text round-trips.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from seeds import judging, world

SPECIALS = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
# Verdicts, "A:" labels, words with their stop, single letters, anything else.
PIECES = r" ?\[\[[ABC]\]\]| ?[A-Z]:| ?[A-Za-z]{2,}[:.,]?| ?[A-Za-z0-9]| ?[^\sA-Za-z0-9]|\s"
CHAT = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def corpus(lines: int) -> Iterator[str]:
    """Text of the world: instructions, answers, prompts and judgments."""
    rng = random.Random(7)
    for _ in range(lines):
        instruction = world.draw(rng, "seed")
        yield world.say(instruction.answer)
        yield judging.TEMPLATES["modify"].format(instruction=instruction.text)
        yield from judging.example(rng, instruction, careless=0.0)


def build() -> PreTrainedTokenizerFast:
    """Learn the tokenizer."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        min_frequency=50,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(4000), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIALS[1:4],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT
    return tokenizer
