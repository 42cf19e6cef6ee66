"""Judge templates, verdicts and their aggregation: pure functions, used wherever a pair is judged.

Knows nothing about models, databases or the web.
"""

from selftaught.judging.templates import (
    ORDERS,
    BestOfFourTemplate,
    JudgeTemplate,
    Message,
    ModifyTemplate,
    Order,
    RatingTemplate,
    Template,
    load_judge_template,
    load_modify_template,
    load_template,
    parse_template,
    template_names,
)
from selftaught.judging.verdicts import (
    Combined,
    Judged,
    Tally,
    Verdict,
    aggregate,
    combine,
    parse_verdict,
    swap,
    tally,
)

__all__ = [
    "ORDERS",
    "BestOfFourTemplate",
    "Combined",
    "JudgeTemplate",
    "Judged",
    "Message",
    "ModifyTemplate",
    "Order",
    "RatingTemplate",
    "Tally",
    "Template",
    "Verdict",
    "aggregate",
    "combine",
    "load_judge_template",
    "load_modify_template",
    "load_template",
    "parse_template",
    "parse_verdict",
    "swap",
    "tally",
    "template_names",
]
