"""Aliases: movable names for immutable model versions, with history, revisions and rollback.

Everything here runs inside the caller's transaction and only reads and writes rows. A move locks
the alias's row, so two movers are one after the other and each sees what the other did. It ends the
alias's canary, and evaluators hear of the version (canaries.tell) so that they open it.
"""

from __future__ import annotations

import re

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from selftaught import canaries, webhooks
from selftaught.database.tables import Alias, AliasHistory, ModelVersion
from selftaught.keeping import holds

LATEST = "latest"
_LARGEST = 2**31 - 1  # what the column holds
_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class AliasError(Exception):
    """Any refusal of this module; the message is fit for a user to read."""


class UnknownModel(AliasError):
    """No such model, version or alias."""

    def __init__(self, ref: str, known: list[str]) -> None:
        super().__init__(f"unknown model {ref!r}; known: {', '.join(known) or 'none'}")
        self.ref, self.known = ref, known


class NothingPromoted(AliasError):
    """No version has passed its gate yet."""


class AmbiguousModel(AliasError):
    """No model was named and several have a `latest`."""

    def __init__(self, candidates: list[str]) -> None:
        super().__init__(f"name a model; these have a {LATEST!r}: {', '.join(candidates)}")
        self.candidates = candidates


class BadAliasName(AliasError):
    """Not an alias: wrong characters, or only digits (`name:3` means version 3)."""


class RevisionMismatch(AliasError):
    """The alias is not at the revision that the caller saw."""

    def __init__(self, alias: str, expected: int, actual: int) -> None:
        super().__init__(f"alias {alias!r} is at revision {actual}, not {expected}")
        self.actual = actual


class NothingToRollBackTo(AliasError):
    """The alias has never named another version before this one."""


def check_name(alias: str) -> None:
    """Raises BadAliasName."""
    if not _ALIAS.fullmatch(alias) or alias.isdigit():
        raise BadAliasName(
            f"{alias!r} cannot be an alias: use up to 64 of a-z 0-9 . _ -, not only digits"
        )


def move(
    session: Session,
    model: str,
    alias: str,
    version: ModelVersion | int,
    reason: str,
    expected_revision: int | None = None,
    by: str | None = None,
) -> Alias:
    """Point an alias at a version (a row or its number), and write the move down.

    `expected_revision`: the revision that the caller saw, 0 for "not there yet"; None moves it
    whatever it is. `by`: the name of the key that asks. Moving to where it already points changes
    nothing.
    Raises BadAliasName, UnknownModel, RevisionMismatch.
    """
    check_name(alias)
    if isinstance(version, int):
        version = get_version(session, model, version)
    row = lock(session, model, alias)
    if holds.version(session, version.id) is None:  # deleted meanwhile
        raise UnknownModel(version.ref, known_refs(session, model))
    if row is None and not expected_revision:
        # A racing first move makes this insert wait, and then do nothing.
        created = session.scalar(
            insert(Alias)
            .values(model=model, alias=alias, version_id=version.id, revision=1)
            .on_conflict_do_nothing()
            .returning(Alias.revision)
        )
        row = lock(session, model, alias)
        if created is not None and row is not None:
            _record(session, row, reason, by)
            _tell(session, row, "alias.moved", None, reason)
            return row
    actual = row.revision if row is not None else 0
    if row is None or (expected_revision is not None and expected_revision != actual):
        raise RevisionMismatch(alias, expected_revision or 0, actual)
    if row.version_id != version.id:
        _point(session, row, version.id, reason, by)
    return row


def rollback(
    session: Session,
    model: str,
    alias: str,
    reason: str = "rollback",
    expected_revision: int | None = None,
    by: str | None = None,
) -> Alias:
    """Point an alias back at the version before its present one.

    Coming back to a version undoes everything after it: after 1, 2, 3 one rollback gives 2 and the
    next gives 1, never 3 again. Raises UnknownModel, RevisionMismatch, NothingToRollBackTo.
    """
    row = lock(session, model, alias)
    if row is None:
        raise UnknownModel(f"{model}:{alias}", known_refs(session, model))
    if expected_revision is not None and expected_revision != row.revision:
        raise RevisionMismatch(alias, expected_revision, row.revision)
    trail: list[str] = []
    for entry in history(session, model, alias):
        if entry.version_id in trail:
            del trail[trail.index(entry.version_id) + 1 :]
        else:
            trail.append(entry.version_id)
    if len(trail) < 2:
        here = session.get_one(ModelVersion, row.version_id).ref
        raise NothingToRollBackTo(
            f"{here} was the first version of {model}:{alias}, and every later move is undone; "
            "to name another version promote it"
        )
    _point(session, row, trail[-2], reason, by, "alias.rolled_back")
    return row


def resolve(session: Session, ref: str | None) -> ModelVersion:
    """The version that `name`, `name:alias` or `name:number` means now.

    None: the only model that has a `latest`. Raises UnknownModel, NothingPromoted, AmbiguousModel.
    """
    return session.get_one(ModelVersion, resolve_id(session, ref))


def resolve_id(session: Session, ref: str | None) -> str:
    """The id of :func:`resolve`, without reading the version's lineage."""
    if ref is None:
        promoted = list(
            session.scalars(select(Alias.model).where(Alias.alias == LATEST).order_by(Alias.model))
        )
        if not promoted:
            raise NothingPromoted("no model version has been promoted yet")
        if len(promoted) > 1:
            raise AmbiguousModel(promoted)
        ref = promoted[0]
    if "\0" in ref or len(ref) > 200:
        raise UnknownModel(ref[:200], model_names(session))
    model, colon, pointer = ref.partition(":")
    if colon and pointer.isascii() and pointer.isdigit():
        return _version_id(session, model, int(pointer))
    found = session.scalars(
        select(Alias.version_id).where(
            Alias.model == model, Alias.alias == (pointer if colon else LATEST)
        )
    ).one_or_none()
    if found is not None:
        return found
    known = known_refs(session, model)
    if known and (not colon or pointer == LATEST):
        raise NothingPromoted(f"no version of {model!r} has been promoted yet")
    raise UnknownModel(ref, known or model_names(session))


def get_version(session: Session, model: str, number: int) -> ModelVersion:
    """An exact version; raises UnknownModel."""
    return session.get_one(ModelVersion, _version_id(session, model, number))


def _version_id(session: Session, model: str, number: int) -> str:
    query = select(ModelVersion.id).where(
        ModelVersion.model == model, ModelVersion.number == number
    )
    found = session.scalars(query).one_or_none() if 0 <= number <= _LARGEST else None
    if found is None:
        known = known_refs(session, model) or model_names(session)
        raise UnknownModel(f"{model}:{number}", known)
    return found


def find(session: Session, model: str, alias: str) -> Alias | None:
    """The alias's row; None if there is none."""
    return session.scalars(
        select(Alias).where(Alias.model == model, Alias.alias == alias)
    ).one_or_none()


def lock(session: Session, model: str, alias: str) -> Alias | None:
    """The alias's row, locked and fresh; None if there is none."""
    return session.scalars(
        select(Alias)
        .where(Alias.model == model, Alias.alias == alias)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()


def history(session: Session, model: str, alias: str) -> list[AliasHistory]:
    """Every move, oldest first."""
    return list(
        session.scalars(
            select(AliasHistory)
            .where(AliasHistory.model == model, AliasHistory.alias == alias)
            .order_by(AliasHistory.revision)
        )
    )


def model_names(session: Session) -> list[str]:
    """Every model that has a version."""
    query = select(ModelVersion.model).distinct().order_by(ModelVersion.model).limit(100)
    return list(session.scalars(query))


def known_refs(session: Session, model: str) -> list[str]:
    """What can be named of a model: its aliases, then its newest versions."""
    aliases = session.scalars(select(Alias.alias).where(Alias.model == model).order_by(Alias.alias))
    numbers = session.scalars(
        select(ModelVersion.number)
        .where(ModelVersion.model == model)
        .order_by(ModelVersion.number.desc())
        .limit(20)
    )
    return [f"{model}:{name}" for name in [*aliases, *numbers]]


def _point(
    session: Session,
    row: Alias,
    version_id: str,
    reason: str,
    by: str | None,
    event: str = "alias.moved",
) -> None:
    before, row.version_id = row.version_id, version_id
    row.revision += 1
    canaries.end(session, row.model, row.alias, f"the alias moved: {reason}")
    _record(session, row, reason, by)
    _tell(session, row, event, before, reason)


def _record(session: Session, row: Alias, reason: str, by: str | None) -> None:
    session.add(
        AliasHistory(
            model=row.model,
            alias=row.alias,
            revision=row.revision,
            version_id=row.version_id,
            reason=reason,
            key_name=by,
        )
    )
    session.flush()
    canaries.tell(session, row.version_id)


def _tell(session: Session, row: Alias, event: str, before: str | None, reason: str) -> None:
    query = select(ModelVersion.id, ModelVersion.number).where(
        ModelVersion.id.in_([row.version_id, before])
    )
    refs = {version_id: f"{row.model}:{number}" for version_id, number in session.execute(query)}
    told = {
        "model": row.model,
        "alias": row.alias,
        "version": refs[row.version_id],
        "before": refs.get(before or ""),
        "revision": row.revision,
        "reason": reason,
    }
    webhooks.tell(session, row.project_id, event, told)
