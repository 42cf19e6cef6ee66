"""Writes prompts.jsonl: 300 messages to the support of Torvik, a made-up maker of coffee machines.

`python make_prompts.py` gives the same file every time. Yours is an export of what customers wrote;
take names, addresses and numbers out first, or let the job drop such rows (`select.drop_pii`).
"""

import json
import random
from pathlib import Path

MACHINES = ["Torvik One", "Torvik Duo", "Torvik Mini", "Torvik Pro 2", "Torvik Travel"]
PARTS = ["drip tray", "milk frother", "water tank lid", "portafilter", "grinder burr", "group seal"]
BEANS = ["the dark roast", "the Guji single origin", "the decaf", "the house blend"]
OPENINGS = [
    "",
    "Hi, ",
    "Hello Torvik team, ",
    "Good morning. ",
    "Second time I am writing about this. ",
    "Sorry to bother you again, ",
    "Quick question: ",
    "I am quite disappointed. ",
]
ENDINGS = [
    "",
    "",
    " What should I do?",
    " Please answer in two or three sentences.",
    " I need this solved before the weekend.",
    " A short list of steps would help.",
    " Please explain it so that my father, who is 78, can follow.",
    " Can you also tell me what it will cost?",
]
SITUATIONS = [
    "my {machine} shows three red lights after descaling and does not heat up any more.",
    "the {machine} leaks from below whenever the tank is more than half full.",
    "the pump of my {machine} got very loud, and the coffee comes only in drops.",
    "my {machine} stops in the middle of a cup and says 'error 14'.",
    "I moved to another country with a different voltage. Can I go on using my {machine}?",
    "how often do I have to descale the {machine} if our water is very hard?",
    "may the {part} go into the dishwasher?",
    "the {part} of my {machine} broke after {months} months. Is that covered by the warranty?",
    "I ordered a {part} {days} days ago and the tracking page still says 'label created'.",
    "you sent me a {part} for the Torvik Mini, but I have the {machine}.",
    "I was charged twice for order TV-{number}.",
    "I cancelled my subscription {days} days ago, but a box of {beans} was shipped today.",
    "I would like to pause my subscription for {months} months and then go on with {beans}.",
    "my box of {beans} arrived torn, and half of the beans were in the parcel.",
    "can I change {beans} to something less bitter, but with the same caffeine?",
    "I want to return the {machine}. I unpacked it, and used it twice.",
    "the discount code from your newsletter is refused at checkout.",
    "I need an invoice with our VAT number for order TV-{number}.",
    "can I change the delivery address of order TV-{number}? It was paid an hour ago.",
    "the app does not find my {machine}, though both are in the same wifi.",
    "after the last app update my saved recipes are gone.",
    "how do I delete my account and everything you know about me?",
    "somebody called me, said he was from Torvik, and asked for my card number. Was that you?",
    "is it safe to leave the {machine} on standby while we are away for {days} days?",
    "my {machine} gave me a light electric shock when I touched the steam wand.",
    "there is black residue in the first cup every morning. Is it harmful?",
    "the milk from the {part} is warm but never hot.",
    "which grind setting do you recommend for {beans} on the {machine}?",
    "is the {machine} or the Torvik Pro 2 better for an office of {number2} people?",
    "my {machine} was repaired by you in spring, and the same fault is back.",
    "do you ship to the Canary Islands, and who pays the customs duty?",
    "the engraving on my {machine}, which was a present, has a typing error.",
    "I am allergic to latex. Does the {part} contain any?",
    "a colleague says that paper filters of another brand void the warranty. Is that true?",
    "I would like to speak with a person and not with a bot about order TV-{number}.",
    "I have the {machine} on loan from your shop in Bergen. How do I give it back?",
]


def prompt(rng: random.Random) -> str:
    """One message."""
    body = rng.choice(SITUATIONS).format(
        machine=rng.choice(MACHINES),
        part=rng.choice(PARTS),
        beans=rng.choice(BEANS),
        months=rng.randint(2, 23),
        days=rng.randint(2, 21),
        number=rng.randint(10_000, 99_999),
        number2=rng.randint(4, 40),
    )
    opening = rng.choice(OPENINGS)
    if opening.endswith(". ") or not opening:
        body = body[0].upper() + body[1:]
    return opening + body + rng.choice(ENDINGS)


def main() -> None:
    rng = random.Random(7)
    prompts: dict[str, None] = {}
    while len(prompts) < 300:
        prompts.setdefault(prompt(rng))
    lines = [json.dumps({"id": f"s{n}", "instruction": text}) for n, text in enumerate(prompts, 1)]
    Path(__file__).with_name("prompts.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
