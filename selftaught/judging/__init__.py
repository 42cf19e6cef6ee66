"""Judge templates, verdicts and their aggregation: pure functions, used wherever a pair is judged.

Knows nothing about models, databases or the web.
"""

from selftaught.judging.templates import (
    LENGTHS,
    ORDERS,
    JudgeTemplate,
    Label,
    LabelTemplate,
    Message,
    Modification,
    ModifyTemplate,
    Order,
    Template,
    in_context,
    load_judge_template,
    load_label_template,
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
    "LENGTHS",
    "ORDERS",
    "Combined",
    "JudgeTemplate",
    "Judged",
    "Label",
    "LabelTemplate",
    "Message",
    "Modification",
    "ModifyTemplate",
    "Order",
    "Tally",
    "Template",
    "Verdict",
    "aggregate",
    "combine",
    "in_context",
    "load_judge_template",
    "load_label_template",
    "load_modify_template",
    "load_template",
    "parse_template",
    "parse_verdict",
    "swap",
    "tally",
    "template_names",
]
