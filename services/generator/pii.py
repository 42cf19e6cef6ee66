"""Whether a text holds something that points to a person: an address or a number that checks out.

Offline and without a model: phone numbers by `phonenumbers` (libphonenumber: international ones,
and North American ones without a country code), card numbers and IBANs by `python-stdnum` (check
digits), e-mail addresses by their form. Names and street addresses are not found.
"""

from __future__ import annotations

import re

from phonenumbers import Leniency, PhoneNumberMatcher
from stdnum import iban, luhn

_EMAIL = re.compile(r"(?<![\w.+/-])[\w.+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}\b(?!:)")
_CARD = re.compile(r"(?<![\w.-])[3-6](?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


def has_pii(text: str) -> bool:
    """True if the text holds an e-mail address, or a valid phone number, card number or IBAN."""
    return (
        _EMAIL.search(text) is not None
        or any(luhn.is_valid(re.sub("[ -]", "", found)) for found in _CARD.findall(text))
        or any(iban.is_valid(found) for found in _IBAN.findall(text))
        or any(_phone(text, region) for region in (None, "US"))
    )


def _phone(text: str, region: str | None) -> bool:
    return PhoneNumberMatcher(text, region, Leniency.STRICT_GROUPING).has_next()
