"""Recipes: every setting of a job, by stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selftaught.contracts.base import Contract, Name


class SamplingSettings(Contract):
    """How a model is sampled."""

    temperature: float = Field(0.7, ge=0, description="0 is greedy.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Only the likeliest tokens that have this share together."
    )
    top_k: int = Field(0, ge=0, description="0 means all tokens.")
    max_tokens: int = Field(1024, ge=1, le=32768, description="Length limit of a completion.")


class LabelSettings(Contract):
    """How the seed model labels instructions: category, complexity, expected length."""

    template: str = Field("label", description="Label template by name; it lists the categories.")
    retries: int = Field(
        1, ge=0, le=10, description="A reply that cannot be read is asked for again this often."
    )
    sampling: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(temperature=0.7, max_tokens=256),
        description="How replies are sampled.",
    )

    @model_validator(mode="after")
    def _retries_differ(self) -> LabelSettings:
        _need_chance(self.retries, self.sampling, "retries")
        return self


class QuotaSettings(Contract):
    """Which labelled instructions are used."""

    categories: dict[str, Annotated[int, Field(ge=1)] | None] | None = Field(
        None,
        description="Category -> at most so many rows (null: all of them); categories that are "
        "not named are dropped. Without this setting all categories are used.",
    )
    min_complexity: int = Field(1, ge=1, le=5, description="Simpler rows are dropped.")
    max_complexity: int = Field(5, ge=1, le=5, description="More complex rows are dropped.")

    @model_validator(mode="after")
    def _range(self) -> QuotaSettings:
        if self.min_complexity > self.max_complexity:
            raise ValueError("min_complexity is above max_complexity")
        return self


class SelectSettings(Contract):
    """Which uploaded rows may be used."""

    min_chars: int = Field(1, ge=0, description="Shorter instructions are dropped (characters).")
    max_chars: int = Field(
        8000,
        ge=1,
        description="Longer instructions are dropped (characters, with their context if any).",
    )
    turn: Literal["first", "last"] = Field(
        "first",
        description="Of a conversation: its first user turn alone, or its last one with the "
        "messages before it as context.",
    )
    languages: list[str] | None = Field(
        None,
        min_length=1,
        description="Only rows in these languages, as the data names them; a row that does not "
        "say its language is dropped too.",
    )
    drop_toxic: bool = Field(False, description="Drop rows that the data marks as toxic.")
    drop_redacted: bool = Field(False, description="Drop rows that the data marks as redacted.")
    drop_pii: bool = Field(
        False,
        description="Drop rows with an e-mail address, or a valid phone, card or bank account "
        "number (IBAN).",
    )
    near_duplicates: float = Field(
        1.0,
        ge=0.1,
        le=1,
        description="Drop a row whose word 3-grams have at least this Jaccard similarity with an "
        "earlier row's; 1 is off.",
    )
    quotas: QuotaSettings | None = Field(
        None, description="Given (also empty): the seed model labels every row, and these choose."
    )
    label: LabelSettings = Field(default_factory=LabelSettings)


class PairSettings(Contract):
    """How instructions become response pairs whose worse side is known by construction."""

    construction: Literal["modified", "verified"] = Field(
        "modified",
        description="'modified': the worse response answers a modified instruction. 'verified': "
        "of sampled responses, one that meets the row's reference answer and one that does not.",
    )
    template: str = Field(
        "modify",
        description="Template that asks for a modified instruction; with one that also asks for "
        "its answer (modify-and-answer) both come from one call, as in the paper.",
    )
    instructions: int = Field(
        2500, ge=1, description="Fresh instructions each iteration takes from the selection."
    )
    fresh: bool = Field(
        True,
        description="Every iteration takes a fresh slice; false: the pairs of iteration 1 serve "
        "all iterations, as in the paper.",
    )
    respond: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(temperature=0.7),
        description="How responses are sampled.",
    )
    modify: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(temperature=0.7),
        description="How modified instructions are sampled.",
    )
    retries: int = Field(
        0, ge=0, le=10, description="An unusable modification is asked for again this often."
    )
    samples: int = Field(
        8, ge=2, le=64, description="Responses per instruction that 'verified' chooses from."
    )
    near_equal: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Drop a pair whose responses are at least this similar (difflib ratio over "
        "words); 1 drops equal ones only.",
    )
    drop_refusals: bool = Field(
        False, description="Drop a modification that opens like a refusal to write one."
    )

    @model_validator(mode="after")
    def _samples_differ(self) -> PairSettings:
        _need_chance(self.retries, self.modify, "retries")
        if self.construction == "verified":
            _need_chance(self.samples, self.respond, "construction 'verified'")
        return self


def _need_chance(samples: int, sampling: SamplingSettings, what: str) -> None:
    if samples and sampling.temperature == 0:
        raise ValueError(f"{what}: greedy sampling (temperature 0) gives the same reply again")


class JudgeSettings(Contract):
    """How the current judge is sampled: N judgments per order, both orders."""

    template: str = Field("mt-bench", description="Judge template by name.")
    samples: int = Field(15, ge=1, le=64, description="Judgments per pair and order (N), at most.")
    need: Literal["all", "right", "right_and_wrong"] = Field(
        "all",
        description="When an input (a pair in one order) has enough judgments: 'all' N, as in the "
        "paper; as soon as one is 'right'; as soon as one is right and one is not (for DPO).",
    )
    wave: int = Field(
        4, ge=1, le=64, description="Judgments asked for at once while an input needs more."
    )
    quota: int | None = Field(
        None,
        ge=1,
        description="Inputs with enough judgments that an iteration wants of each label, A and B: "
        "each chunk stops asking about a label once it has its share. Inputs that are soon right "
        "then fill the quota. Null: no limit.",
    )
    sampling: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(temperature=0.7, top_p=0.9, max_tokens=4096),
        description="How judgments are sampled.",
    )

    @model_validator(mode="after")
    def _quota_of_enough(self) -> JudgeSettings:
        if self.quota is not None and self.need == "all":
            raise ValueError("judge.quota: with need 'all' every input is asked N times")
        return self


class CurateSettings(Contract):
    """Which judgments become training examples."""

    label: Literal["constructed", "majority", "random", "none"] = Field(
        "constructed",
        description="What a verdict is compared with. 'constructed' is the method; 'majority' (the "
        "judge's own majority), 'random' and 'none' (every verdict passes) are controls.",
    )
    min_share: float = Field(
        0.0, ge=0, le=1, description="Keep an input only if this share of its samples is right."
    )
    both_orders: bool = Field(
        False, description="Keep a pair only if both of its orders have a kept judgment."
    )
    agree: bool = Field(
        False,
        description="With both_orders: the two kept judgments must reason from the same answer "
        "(their texts agree up to the first sentence end).",
    )
    per_input: int = Field(
        1, ge=1, description="Kept judgments (and preference pairs) per input, chosen at random."
    )
    balance: bool = Field(True, description="Equal numbers of A and B labels.")
    preferences: bool = Field(
        False,
        description="Also publish pairs of a right and a wrong judgment of one input, for DPO; "
        "train.objective 'sft_dpo' makes them in any case.",
    )


class LoraSettings(Contract):
    """LoRA on all linear layers (PEFT)."""

    rank: int = Field(16, ge=1, le=512, description="Of the matrices that are trained.")
    alpha: int = Field(32, ge=1, description="Their product is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="On their input.")


class TrainSettings(Contract):
    """Fine-tuning on the iteration's judgments, loss on judgment tokens only (docs/training.md)."""

    objective: Literal["sft", "sft_dpo"] = Field(
        "sft",
        description="'sft': imitate kept judgments. 'sft_dpo': DPO on pairs of a right and a wrong "
        "judgment, plus nll_weight times the loss of 'sft' on the right one.",
    )
    beta: float = Field(0.1, gt=0, description="DPO: how firmly the seed's judgments are held to.")
    nll_weight: float = Field(1.0, ge=0, description="'sft_dpo': weight of the right judgment.")
    start: Literal["seed", "previous"] = Field(
        "seed", description="Begin from the seed, as in the paper, or from the version before."
    )
    examples: Literal["own", "all"] = Field(
        "own",
        description="An iteration trains on its own examples, or on those of all iterations of "
        "the job so far.",
    )
    method: Literal["full", "lora"] = Field("full", description="All weights, or an adapter.")
    lora: LoraSettings = Field(default_factory=LoraSettings)
    devices: int = Field(
        1, ge=1, description="GPUs of one training; more than 1 shards the model over them (FSDP2)."
    )
    quantize: Literal["none", "nf4"] = Field(
        "none",
        description="'nf4' holds the frozen base in 4 bits (QLoRA; needs bitsandbytes).",
    )
    learning_rate: float = Field(1e-6, gt=0, description="Of AdamW, after warm-up.")
    schedule: Literal["linear", "cosine"] = Field("linear", description="Decay after warm-up.")
    final_lr_share: float = Field(0.2, ge=0, le=1, description="The schedule ends at this share.")
    warmup_steps: int = Field(
        100, ge=0, description="Over these the learning rate rises from 0, linearly."
    )
    steps: int | None = Field(500, ge=1, description="Optimizer steps; null: see epochs.")
    epochs: float | None = Field(
        None, gt=0, description="Passes over the examples, in place of steps (which is then null)."
    )
    tokens_per_step: int = Field(
        8192, ge=1, description="Tokens per step (prompt and judgment), so runs compare."
    )
    micro_batch_tokens: int = Field(
        2048,
        ge=1,
        description="Tokens, padding included, that go through the model at once; a step adds up "
        "the gradients of its micro-batches.",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are scaled down to it.")
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW.")
    dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="Arithmetic; 'auto' is bf16 on CUDA and fp32 on a CPU."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: less memory."
    )
    checkpoints: int = Field(
        2, ge=1, le=10, description="Kept evenly over the run; the best one is published."
    )
    save_every: int = Field(
        100, ge=0, description="Steps between savings that a killed run goes on from; 0: never."
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("train: give either steps or epochs, and null for the other")
        return self

    @model_validator(mode="after")
    def _only_a_frozen_base_is_quantized(self) -> TrainSettings:
        if self.quantize != "none" and self.method != "lora":
            raise ValueError("train.quantize: only a frozen base can be quantized (method: lora)")
        return self


class EngineSettings(Contract):
    """The vLLM server that a node starts for `inference: vllm` (docs/engines.md)."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Of weights and activations; 'auto': the model's own (CPU: float32)."
    )
    tensor_parallel: int = Field(1, ge=1, description="Devices that share each layer.")
    pipeline_parallel: int = Field(1, ge=1, description="Groups of devices that share the layers.")
    data_parallel: int = Field(1, ge=1, description="Copies of the model behind one server.")
    max_model_len: int | None = Field(
        None, ge=16, description="Tokens of prompt and completion; null: the model's own limit."
    )
    max_adapters: int = Field(4, ge=1, le=64, description="LoRA adapters loaded at once.")
    prefix_caching: bool = Field(True, description="Compute a shared beginning of prompts once.")
    memory_share: float = Field(
        0.9, gt=0, le=1, description="Of each GPU's memory, for weights and KV cache."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of the server itself.")

    @property
    def devices(self) -> int:
        """GPUs that one server takes."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


LOCAL_INFERENCE = frozenset({"local", "vllm"})
"""Ways of inference that need the weights here; every other name is an operator's endpoint."""


class RoleSettings(Contract):
    """A model beside the judge, and what serves it."""

    base_model: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="A base model the operator allows, or one that the endpoint knows, by name.",
    )
    inference: str = Field("local", description="As the recipe's.")
    engine: EngineSettings = Field(default_factory=EngineSettings)


class ValidateSettings(Contract):
    """What chooses the checkpoint and what the gate compares; never the same pairs."""

    instructions: int = Field(400, ge=2, description="Instructions set aside before iteration 1.")
    choose_on: Literal["heldout", "labelled"] = Field(
        "heldout",
        description="What chooses among the checkpoints: every second one of the held-out "
        "constructed pairs (no labels), or of the job's labelled dataset. The others of that set "
        "are scored for the gate; the other set is scored whole.",
    )
    max_tokens: int = Field(4096, ge=1, description="Length limit of a greedy judgment (tokens).")


class ReviewRule(Contract):
    """What people must have said of a version's judgments before it is promoted."""

    minimum: int = Field(0, ge=0, description="Reviews of this version, at least; 0: not asked.")
    agreement: float = Field(
        0.0, ge=0, le=1, description="Share of them that agree with the judge, at least."
    )


class GateSettings(Contract):
    """When a version becomes `latest` (docs/promotion.md)."""

    margin: float = Field(
        0.0, ge=0, le=1, description="Held-out strict accuracy must rise by at least this much."
    )
    labelled_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Strict accuracy on a labelled set may fall by this much; by more only if the "
        "paired 95 % interval of the difference reaches 0.",
    )
    labelled: list[str] = Field(
        default_factory=list,
        max_length=20,
        description="Ids of labelled datasets that every version is scored on, beside the job's.",
    )
    max_position_bias: float = Field(
        0.9,
        ge=0,
        le=1,
        description="|position bias|, at most, on every scored set; the default refuses a judge "
        "that gives the same letter in more than 95 % of its verdicts.",
    )
    max_parse_failures: float = Field(
        0.5, ge=0, le=1, description="Judgments without a verdict, at most, on every scored set."
    )
    reviews: ReviewRule = Field(default_factory=ReviewRule)

    @model_validator(mode="after")
    def _each_set_once(self) -> GateSettings:
        if len(set(self.labelled)) < len(self.labelled):
            raise ValueError("gate.labelled: a dataset is named twice")
        return self


def _all_defaults(schema: dict[str, Any], recipe: type[BaseModel]) -> None:
    schema["examples"] = [recipe().model_dump(mode="json", by_alias=True)]


class Recipe(Contract):
    """All settings of a job. Two jobs with the same recipe, data and seed give the same counts."""

    name: Name = Field("custom", description="Also of the model, if the job gives none.")
    base_model: str = Field("smallworld", description="A base model the operator allows, by name.")
    inference: str = Field(
        "local",
        description="'local' (transformers), 'vllm' (a server that the platform starts), or the "
        "name of an operator's endpoint.",
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    generator: RoleSettings | None = Field(
        None, description="Another model makes the pairs; null: the seed does."
    )
    labeller: RoleSettings | None = Field(
        None, description="Another model labels instructions; null: the seed does."
    )
    iterations: int = Field(5, ge=1, le=50, description="Rounds that train, after the seed's.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of everything that is drawn.")
    chunk_size: int = Field(128, ge=1, le=4096, description="Inputs per chunk of work.")
    select: SelectSettings = Field(default_factory=SelectSettings)
    pair: PairSettings = Field(default_factory=PairSettings)
    judge: JudgeSettings = Field(default_factory=JudgeSettings)
    curate: CurateSettings = Field(default_factory=CurateSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    validate_: ValidateSettings = Field(default_factory=ValidateSettings, alias="validate")
    gate: GateSettings = Field(default_factory=GateSettings)

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        protected_namespaces=(),
        json_schema_extra=_all_defaults,
    )

    @model_validator(mode="after")
    def _samples_suffice(self) -> Recipe:
        curate = self.curate
        if self.judge.need != "all" and (curate.label != "constructed" or curate.min_share > 0):
            raise ValueError(
                "judge.need: only 'all' goes with curate.min_share and with labels that are not "
                "'constructed': they look at all N judgments"
            )
        if self.judge.quota is not None and curate.both_orders:
            raise ValueError(
                "judge.quota: not with curate.both_orders, which needs both labels of a pair"
            )
        return self

    @model_validator(mode="after")
    def _preferences_have_a_wrong_side(self) -> Recipe:
        if self.wants_preferences and self.curate.label == "none":
            raise ValueError("curate.label: with 'none' no judgment is wrong, so none are paired")
        return self

    @property
    def roles(self) -> dict[str, RoleSettings]:
        """The models beside the judge, by role."""
        given = {"generator": self.generator, "labeller": self.labeller}
        return {name: role for name, role in given.items() if role is not None}

    @property
    def wants_preferences(self) -> bool:
        """Curation publishes preference pairs."""
        return self.curate.preferences or self.train.objective == "sft_dpo"
